"""The guard around what a rank does: an error of any kind, of an import too, reaches the launcher as an error file, and not
as one more traceback among those of the other ranks. Loads nothing large itself.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
import warnings
from collections.abc import Callable

from frazil_jobs.base.exits import OK
from frazil_jobs.base.log import configure
from frazil_jobs.base.parent import die_with_parent
from frazil_jobs.launching.failures import failure_of
from frazil_jobs.launching.settings import RankSettings
from frazil_jobs.launching.stopping import StopFlag


def guarded(component: str, work: Callable[[RankSettings, StopFlag], None]) -> None:
    """Run the rank that the environment names. Doesn't return."""
    die_with_parent()
    flag = StopFlag()
    flag.install()
    faulthandler.enable()
    warnings.filterwarnings("ignore")
    rank = RankSettings.from_environ(os.environ)
    configure(component, rank=rank.rank)
    code = OK
    try:
        work(rank, flag)
    except BaseException as error:  # whatever it is, the launcher tells it
        failure = failure_of(error, rank=rank.rank, raised_ns=time.monotonic_ns())
        failure.write(rank.run)
        code = failure.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    # No shutdown of the interpreter: a thread of a broken collective could hold it up for as long as the time-out.
    os._exit(code)
