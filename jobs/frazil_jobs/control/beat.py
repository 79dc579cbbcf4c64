"""The worker's heartbeat: a step of Celery's consumer, which begins with each connection to the broker and ends with it."""

from __future__ import annotations

from typing import Any, Final

from celery import bootsteps

from frazil_jobs.control.alive import touch

BEAT_SECONDS: Final = 5.0


class Beat(bootsteps.StartStopStep):  # type: ignore[misc]
    """Touches the file of `control.alive` from the very loop that takes tasks, while it can take one or has one at work.

    (One whose places are all taken by messages that nobody works on takes no task any more, though it's connected.)
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        self._timer: Any = None
        super().__init__(parent, **kwargs)

    def start(self, parent: Any) -> None:
        """Connected."""
        touch()

        def beat() -> None:
            if parent.task_consumer.channel.qos.can_consume() or parent.pool.busy:
                touch()

        self._timer = parent.timer.call_repeatedly(BEAT_SECONDS, beat)

    def stop(self, parent: Any) -> None:
        """The connection is lost, or the worker ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
