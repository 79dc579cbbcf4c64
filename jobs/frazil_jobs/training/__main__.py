"""`python -m frazil_jobs.training`: the stand-in, until the trainer lands."""

import sys

from frazil_jobs.training.standin import main

sys.exit(main())
