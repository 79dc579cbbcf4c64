"""`python -m frazil_jobs.control`: the Celery worker for whole jobs (inspect, finalize, delete outputs).

Environment: FRAZIL_REDIS_URL or FRAZIL_REDIS_URL_FILE, FRAZIL_DESTINATIONS (control.destinations) or FRAZIL_STORE and
FRAZIL_S3_* (stores), FRAZIL_QUEUE (frazil.control), FRAZIL_JOB_FOLDER (local runs only), FRAZIL_ALIVE_FILE (control.alive).
"""

from __future__ import annotations

import os
import sys

from frazil_jobs.base import log, parent
from frazil_jobs.base.exits import FrazilError
from frazil_jobs.control.alive import touch
from frazil_jobs.control.beat import Beat
from frazil_jobs.control.destinations import load
from frazil_jobs.outputs.celery_app import CONTROL_QUEUE, make_app, redis_url_of, worker_of

THREADS = 2


def main() -> int:
    """Serve until told to stop."""
    parent.die_with_parent()
    queue = os.environ.get("FRAZIL_QUEUE", CONTROL_QUEUE)
    log.configure("control", queue=queue)
    try:
        app = make_app(redis_url_of(os.environ))
        load()
    except FrazilError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    app.conf.include = ["frazil_jobs.control.tasks"]
    app.steps["consumer"].add(Beat)
    touch()  # the age counts from here until there is a broker
    worker = worker_of(app, queue, threads=THREADS)
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
