"""One rank of a replica: `python -m frazil_jobs.generation.worker`, started by the launcher only.

Nothing large is loaded before the guard stands: an error of an import, too, reaches the launcher as an error file and not
as one more traceback among those of the other ranks. What a rank does is in `session`.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
import warnings

from frazil_jobs.base.exits import OK
from frazil_jobs.base.log import configure
from frazil_jobs.base.parent import die_with_parent
from frazil_jobs.generation.failures import failure_of
from frazil_jobs.generation.settings import RankSettings
from frazil_jobs.generation.stopping import StopFlag


def main() -> None:
    """Run the rank that the environment names. Doesn't return."""
    die_with_parent()
    flag = StopFlag()
    flag.install()
    faulthandler.enable()
    warnings.filterwarnings("ignore")
    rank = RankSettings.from_environ(os.environ)
    configure("generation", rank=rank.rank)
    code = OK
    try:
        from frazil_jobs.generation.session import run_rank

        run_rank(rank, flag)
    except BaseException as error:  # whatever it is, the launcher tells it
        failure = failure_of(error, rank=rank.rank, raised_ns=time.monotonic_ns())
        failure.write(rank.run)
        code = failure.exit_code
    sys.stdout.flush()
    sys.stderr.flush()
    # No shutdown of the interpreter: a thread of a broken collective could hold it up for as long as the time-out.
    os._exit(code)


if __name__ == "__main__":
    main()
