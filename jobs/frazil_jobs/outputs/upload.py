"""`python -m frazil_jobs.outputs.upload`: stores what a spool holds, and relays progress. The `upload` container of a pod.

One Celery worker on the queue of this pod alone, and the scanner that fills that queue. Environment: FRAZIL_SPOOL,
FRAZIL_QUEUE, FRAZIL_REDIS_URL, FRAZIL_STORE and FRAZIL_S3_* (stores), FRAZIL_PREFIX (the job's), FRAZIL_JOB_UID,
FRAZIL_DRAIN_SECONDS (how long SIGTERM waits for what is still in the spool; 20).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from celery.worker import state

from frazil_jobs.base import log, parent
from frazil_jobs.base.exits import OK, TEMPFAIL, BadConfiguration, FrazilError
from frazil_jobs.outputs.celery_app import make_app, redis_url_of, worker_of
from frazil_jobs.outputs.relay import connect, redis_key, relay_progress
from frazil_jobs.outputs.scanner import Scanner
from frazil_jobs.outputs.spool import Spool
from frazil_jobs.outputs.tasks import UPLOAD_ENTRY, Here
from frazil_jobs.outputs.uploader import Uploader
from frazil_jobs.stores import StoreConfig, open_store

THREADS: Final = 4
"""Uploads at once."""
_STOP_SECONDS: Final = 5.0
"""After the worker was told to end."""


@dataclass(frozen=True)
class Settings:
    """The environment, read once."""

    spool: Path
    queue: str
    redis_url: str
    store: StoreConfig
    prefix: str
    uid: str
    drain_seconds: float

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises BadConfiguration naming what is missing."""
        names = ("FRAZIL_SPOOL", "FRAZIL_QUEUE", "FRAZIL_STORE", "FRAZIL_PREFIX", "FRAZIL_JOB_UID")
        missing = [name for name in names if not env.get(name)]
        store = StoreConfig.from_env(env)
        if missing or store is None:
            raise BadConfiguration("must be set", field=", ".join(missing))
        return cls(
            spool=Path(env["FRAZIL_SPOOL"]),
            queue=env["FRAZIL_QUEUE"],
            redis_url=redis_url_of(env),
            store=store,
            prefix=env["FRAZIL_PREFIX"],
            uid=env["FRAZIL_JOB_UID"],
            drain_seconds=float(env.get("FRAZIL_DRAIN_SECONDS", "20")),
        )


def main() -> int:
    """Upload until told to stop."""
    parent.die_with_parent()
    try:
        settings = Settings.from_env(os.environ)
        log.configure("upload", queue=settings.queue)
        spool = Spool(settings.spool)
        Here.uploader = Uploader(spool, open_store(settings.store), settings.prefix)
    except FrazilError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    namespace = settings.prefix.partition("/")[0]
    app = make_app(settings.redis_url, namespace=namespace)
    client = connect(settings.redis_url)
    Here.scanner = Scanner(
        spool=spool,
        ask=lambda entry: app.send_task(
            UPLOAD_ENTRY, args=[entry], queue=settings.queue, retry=False, ignore_result=True
        ),
        relay=lambda progress: relay_progress(client, redis_key(namespace, settings.uid), progress),
        busy=Here.uploader.busy,
    )
    scanning = threading.Thread(target=Here.scanner.run, name="scanner", daemon=True)
    scanning.start()
    _drain_on_signals(spool, settings.drain_seconds)
    worker_of(app, settings.queue, threads=THREADS).start()
    Here.scanner.stop()
    scanning.join(timeout=_STOP_SECONDS)
    return OK if spool.drained() else TEMPFAIL


def _drain_on_signals(spool: Spool, seconds: float) -> None:
    """On SIGTERM or SIGINT: go on until the spool is drained or `seconds` are over, then end the worker."""
    asked = threading.Event()

    def end() -> None:
        asked.wait()
        until = time.monotonic() + seconds
        while not spool.drained() and time.monotonic() < until:
            time.sleep(0.1)
        code = OK if spool.drained() else TEMPFAIL
        Here.scanner.stop()
        state.should_stop = code
        time.sleep(_STOP_SECONDS)
        os._exit(code)  # the worker waits for a broker that is gone

    threading.Thread(target=end, name="drain", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())


if __name__ == "__main__":
    sys.exit(main())
