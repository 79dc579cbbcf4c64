"""Asks for the manifest through Celery, again until its result is seen.

The task is idempotent: it recounts from the store. A request or a result that Redis lost is asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from frazil_cli.components import control_queue_of
from frazil_cli.errors import ComponentFailed
from frazil_cli.prepare import Prepared
from frazil_jobs.base.exits import FAILED, TEMPFAIL
from frazil_jobs.outputs.celery_app import FINALIZE, make_app
from frazil_jobs.stores import StoreConfig, StoreUnreachable, open_store

AGAIN_SECONDS = 30.0
"""After a request of which nothing was heard: the worker may have died with it."""
PAUSE_SECONDS = 1.0
"""After an answer that says to try again, and after Redis didn't answer."""
TRIES = 3
"""Answers that say to try again while the store is well: then something is missing that waiting won't bring."""
_NO_ANSWER = (OperationalError, RedisError, OSError)


@dataclass
class Finishing:
    """One job's manifest, on its way."""

    prepared: Prepared
    store: StoreConfig
    redis_url: str
    patience: float
    """Seconds that a store which is away is waited for."""
    result: Mapping[str, object] = field(default_factory=dict)
    _app: Celery = field(init=False)
    _asked: AsyncResult[Any] | None = None
    _asked_at: float = 0.0
    _not_before: float = 0.0
    _refusals: int = 0
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._app = make_app(self.redis_url)
        options = {**self._app.conf.result_backend_transport_options, "retry_policy": {"timeout": PAUSE_SECONDS}}
        self._app.conf.result_backend_transport_options = options

    def done(self) -> bool:
        """Ask, look for the answer, ask again: one small step. Raises ComponentFailed when there will be no manifest."""
        now = time.monotonic()
        if now < self._not_before:
            return False
        try:
            if self._asked is None or now - self._asked_at > AGAIN_SECONDS:
                self._ask(now)
            assert self._asked is not None
            if not self._asked.ready():
                self._not_before = now + 0.2
                return False
            answer = self._asked.get(timeout=PAUSE_SECONDS, propagate=False)
        except _NO_ANSWER:
            self._asked = None
            self._not_before = now + PAUSE_SECONDS
            return False
        return self._heard(answer, now)

    def _ask(self, now: float) -> None:
        arguments = (
            self.prepared.job.model_dump(mode="json", by_alias=True, exclude_none=True),
            self.prepared.uid,
            self.prepared.prefix,
            self.prepared.pin.model_dump(mode="json"),
        )
        queue = control_queue_of(self.prepared)
        self._asked = self._app.send_task(FINALIZE, args=arguments, queue=queue, retry=False, ignore_result=False)
        self._asked_at = now

    def _heard(self, answer: Any, now: float) -> bool:
        if isinstance(answer, Mapping) and "finalized" in answer:
            self.result = answer["finalized"]
            return True
        told: Any = answer["error"] if isinstance(answer, Mapping) else {}
        error = {"exitCode": FAILED, "message": repr(answer), **told}
        if error["exitCode"] == TEMPFAIL and self._may_still_come(now):
            self._asked = None
            self._not_before = now + PAUSE_SECONDS
            return False
        raise ComponentFailed(f"there is no manifest: {error['message']}", exit_code=int(error["exitCode"]))

    def _may_still_come(self, now: float) -> bool:
        """Whether waiting can help: while the store is away, for as long as it's waited for; else for a few tries."""
        try:
            open_store(self.store).stat(f"{self.prepared.prefix}/manifest.json")
        except StoreUnreachable:
            return now - self._began < self.patience
        self._refusals += 1
        return self._refusals < TRIES
