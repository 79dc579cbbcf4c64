"""`python -m frazil_jobs.generation`: the launcher."""

import sys

from frazil_jobs.generation.launcher import main

sys.exit(main())
