"""The Celery application of Frazil's workers: who uploads (a queue a pod), and who inspects and finalizes (`control`).

Messages are JSON and hold ids, never data. They are acknowledged after the work, and a lost one costs a rescan: nothing here
is a truth. Workers run threads, so that they end at once with their process.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from billiard.einfo import ExceptionInfo
from celery import Celery
from celery.apps.worker import Worker
from celery.concurrency.thread import TaskPool
from celery.platforms import SecurityWarning

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.base.log import get_logger

CONTROL_QUEUE: Final = "frazil.control"
"""Tasks on whole jobs: the three below."""
INSPECT: Final = "frazil.inspect"
FINALIZE: Final = "frazil.finalize"
DELETE_OUTPUTS: Final = "frazil.delete_outputs"
VISIBILITY_SECONDS: Final = 6 * 3600
"""Longer than the longest upload: Redis hands a message that isn't acknowledged by then to another worker."""
RESULT_SECONDS: Final = 3600
_SOCKET_SECONDS: Final = 10.0
_RESULT_TRIES: Final = 60
_RESULT_PAUSE_MS: Final = 2000
"""Longest pause between two tries to store a result: all of them take about a minute."""

log = get_logger(__name__)


class Threads(TaskPool):  # type: ignore[misc]
    """Threads that answer for every message they take.

    Celery's own lose a message whose result can't be stored: it's never acknowledged, and holds one of the worker's places
    until the connection to the broker ends.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: set[object] = set()

    @property
    def busy(self) -> bool:
        """Whether a task is at work."""
        return bool(self._running)

    def on_apply(self, target: Callable[..., Any], args: Any = None, kwargs: Any = None, **callbacks: Any) -> Any:
        """Run a task in a thread; what it raises outside of its body is a failure like any."""
        mark = object()

        def answered(*given: Any, **named: Any) -> Any:
            try:
                return target(*given, **named)
            except Exception as error:
                log.warning("a task's result can't be stored; who asked will ask again", reason=repr(error))
                return 1, ExceptionInfo(), 0.0
            finally:
                self._running.discard(mark)

        self._running.add(mark)
        return super().on_apply(answered, args, kwargs, **callbacks)


class QuietWorker(Worker):  # type: ignore[misc]
    """A Celery worker that leaves the signals to whoever starts it."""

    def install_platform_tweaks(self, worker: Any) -> None:
        """Celery's own handlers would stop taking tasks at the first SIGTERM."""


def upload_queue(pod: str) -> str:
    """The queue of one pod."""
    return f"frazil.upload.{pod}"


def redis_url_of(environment: Mapping[str, str]) -> str:
    """FRAZIL_REDIS_URL, or what the file of FRAZIL_REDIS_URL_FILE holds. Raises BadConfiguration."""
    if url := environment.get("FRAZIL_REDIS_URL"):
        return url
    path = environment.get("FRAZIL_REDIS_URL_FILE")
    if not path:
        raise BadConfiguration("must be set", field="FRAZIL_REDIS_URL")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise BadConfiguration(f"can't read {path}: {error.strerror}", field="FRAZIL_REDIS_URL_FILE") from None


def keys_of(namespace: str) -> str:
    """What all Redis keys of a namespace's pods begin with."""
    return f"frazil:{namespace}:"


def make_app(redis_url: str, *, namespace: str | None = None) -> Celery:
    """The application on a broker. Connects when it's first used; no call waits without end.

    With a namespace all keys lie below its own: the pods' user of that namespace may touch no other.
    """
    transport = {
        **({"global_keyprefix": keys_of(namespace)} if namespace else {}),
        "visibility_timeout": VISIBILITY_SECONDS,
        "socket_timeout": _SOCKET_SECONDS,
        "socket_connect_timeout": _SOCKET_SECONDS,
        "socket_keepalive": True,
        "max_retries": 1,
    }
    warnings.simplefilter("ignore", SecurityWarning)  # a container's user without a name is taken for root
    app = Celery("frazil", broker=redis_url, backend=redis_url, set_as_current=True)
    app.Worker = QuietWorker
    app.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,  # a worker outlives its broker
        broker_connection_retry_on_startup=True,
        broker_transport_options=transport,
        redis_socket_connect_timeout=_SOCKET_SECONDS,
        redis_socket_timeout=_SOCKET_SECONDS,
        result_backend_always_retry=True,
        result_backend_max_retries=_RESULT_TRIES,
        result_backend_max_sleep_between_retries_ms=_RESULT_PAUSE_MS,
        result_backend_transport_options=transport,
        result_expires=RESULT_SECONDS,
        result_serializer="json",
        task_acks_late=True,
        task_ignore_result=True,
        task_publish_retry=False,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
    )
    return app


def worker_of(app: Celery, queue: str, *, threads: int) -> Worker:
    """A worker on one queue, of threads, that talks to no other worker."""
    return app.Worker(
        app=app,
        pool=Threads,
        concurrency=threads,
        queues=[queue],
        hostname=f"{queue}@%h",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel="WARNING",
    )
