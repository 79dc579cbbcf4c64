"""`python -m frazil_jobs.training`: the launcher."""

import sys

from frazil_jobs.training.launcher import main

sys.exit(main())
