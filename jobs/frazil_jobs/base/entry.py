"""`python -m frazil_jobs.base.entry MODULE`: runs a module as the first process of a container, which answers SIGTERM from
its first moment.

Linux gives process 1 of a container no default answer to a signal: one that comes before a handler is set, while torch or
Celery are imported, would be lost, and the pod would be killed only when its whole grace period is over. Until the module
sets its own handler nothing has been done that must be ended in order.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import NoReturn

from frazil_jobs.base.exits import CONFIG, TEMPFAIL


def _end(_number: int, _frame: object) -> NoReturn:
    os._exit(TEMPFAIL)


def main() -> int:
    """Run the module that the first argument names."""
    if len(sys.argv) < 2:
        print("usage: python -m frazil_jobs.base.entry MODULE [ARGUMENT ...]", file=sys.stderr)
        return CONFIG
    signal.signal(signal.SIGTERM, _end)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
