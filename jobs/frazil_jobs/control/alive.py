"""`python -m frazil_jobs.control.alive`: the liveness probe of the worker Deployment. Fails when its file is too old.

The file is touched by the loop that takes tasks from the broker (`control.beat`), and only while it's connected: a worker
whose threads are all busy goes on touching it, one that is stuck or finds its broker no more does not. (`celery inspect`
would need remote control, which is off, and fail at once with a broker that is away.)

Environment: FRAZIL_ALIVE_FILE, FRAZIL_STUCK_SECONDS. Imports nothing large: it's run twice a minute.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

VARIABLE: Final = "FRAZIL_ALIVE_FILE"
"""Path of the file; without it nobody looks, and none is made."""
STUCK_VARIABLE: Final = "FRAZIL_STUCK_SECONDS"
"""The file's greatest age."""


def touch() -> None:
    """Say that the worker is alive, where somebody looks."""
    if path := os.environ.get(VARIABLE):
        Path(path).touch()


def main() -> int:
    """0 when the file is young enough, else 1 and why."""
    limit = float(os.environ[STUCK_VARIABLE])
    age = time.time() - Path(os.environ[VARIABLE]).stat().st_mtime
    if age <= limit:
        return 0
    print(f"no task could be taken for {age:.0f} s, and {limit:.0f} s are allowed")
    return 1


if __name__ == "__main__":
    sys.exit(main())
