"""`python -m frazil_jobs.control`: the Celery worker for whole jobs (inspect, finalize).

Environment: FRAZIL_REDIS_URL, FRAZIL_STORE and FRAZIL_S3_* (stores), FRAZIL_QUEUE (frazil.control), FRAZIL_JOB_FOLDER
(local runs only).
"""

from __future__ import annotations

import os
import sys

from frazil_jobs.base import log, parent
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.outputs.celery_app import CONTROL_QUEUE, make_app, worker_of

THREADS = 2


def main() -> int:
    """Serve until told to stop."""
    parent.die_with_parent()
    queue = os.environ.get("FRAZIL_QUEUE", CONTROL_QUEUE)
    log.configure("control", queue=queue)
    redis_url = os.environ.get("FRAZIL_REDIS_URL")
    if not redis_url:
        print(BadConfiguration("must be set", field="FRAZIL_REDIS_URL"), file=sys.stderr)
        return BadConfiguration.exit_code
    app = make_app(redis_url)
    app.conf.include = ["frazil_jobs.inputs.tasks", "frazil_jobs.control.tasks"]
    worker = worker_of(app, queue, threads=THREADS)
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
