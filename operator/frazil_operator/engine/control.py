"""Tasks asked of the chart's worker Deployment through Celery: inspect, finalize, delete_outputs.

They are idempotent, and Redis is a hint: a question without an answer is asked again after a while, and at once when Redis
has forgotten it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import redis
import redis.asyncio
import structlog
from celery import Celery
from celery.result import denied_join_result
from kombu.exceptions import OperationalError

from frazil_jobs.base.exits import TEMPFAIL
from frazil_jobs.base.log import get_logger
from frazil_jobs.outputs.celery_app import CONTROL_QUEUE, DELETE_OUTPUTS, FINALIZE, INSPECT
from frazil_operator.engine.metrics import Metrics
from frazil_operator.reconcile.plan import Ask, Finalization, Inspection, Removal

log = get_logger(__name__)
POLL_SECONDS: Final = 0.25
LOST_SECONDS: Final[dict[str, float]] = {"inspect": 300.0, "finalize": 900.0, "delete_outputs": 900.0}
"""Without an answer for so long, a question is asked again."""
AGAIN_SECONDS: Final = 15.0
"""After an answer that says "try again" (75)."""
UNASKED_AGAIN_SECONDS: Final = 2.0
"""After a question that could not be asked."""
_MARK: Final = "frazil.asked:"  # no namespace's keys begin so
_TASKS: Final = {"inspect": INSPECT, "finalize": FINALIZE, "delete_outputs": DELETE_OUTPUTS}
Answer = Inspection | Finalization | Removal


@dataclass
class _Open:
    """A question that was asked."""

    ask: Ask
    task_id: str
    asked_at: float
    """Last."""
    since: float
    """Asked for the first time."""
    about: Mapping[str, Any] = field(default_factory=structlog.contextvars.get_contextvars)
    """How log lines name the job, of whoever asked: it's asked again from elsewhere."""


class Control:
    """Questions by key: what was asked, what was answered."""

    def __init__(
        self,
        app: Celery,
        client: redis.asyncio.Redis,
        *,
        answered: Callable[[str], None],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._client = client
        self._answered = answered
        self._metrics = metrics
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._answers: dict[str, tuple[float, Answer]] = {}
        self._serial = 0
        self._sending = threading.Lock()
        for name in _TASKS:
            metrics.tasks_open.labels(task=name).set_function(partial(self._count_open, name))
        metrics.task_oldest_seconds.set_function(self._oldest_seconds)

    def answer(self, uid: str, name: str) -> Answer | None:
        """What was answered to a question about a job, if it was."""
        found = self._answers.get(f"{uid}/{name}")
        return found[1] if found else None

    def asked_seconds(self, uid: str, name: str) -> float | None:
        """How long a question about a job is open; None for one that is not."""
        found = self._open.get(f"{uid}/{name}")
        return self._clock() - found.since if found else None

    def forget(self, uid: str) -> None:
        """The job is gone."""
        for held in (self._open, self._answers):
            for key in [key for key in held if key.startswith(f"{uid}/")]:
                del held[key]

    async def ask(self, ask: Ask) -> None:
        """Ask, unless it's being asked or has an answer that still holds. A Redis that is down is tried again by `poll`."""
        held = self._answers.get(ask.key)
        if held is not None and not (_again(held[1]) and self._clock() - held[0] >= AGAIN_SECONDS):
            return
        if ask.key not in self._open:
            self._serial += 1
            now = self._clock()
            self._open[ask.key] = _Open(ask, f"{ask.key}/{time.time_ns()}-{self._serial}", now, since=now)
            await self._send(self._open[ask.key])

    async def _send(self, question: _Open) -> None:
        question.asked_at = self._clock()
        try:
            await self._client.set(_MARK + question.task_id, "1", ex=int(LOST_SECONDS[question.ask.name]) * 2)
            await asyncio.to_thread(self._publish, question)
        except (redis.RedisError, OSError, OperationalError) as error:
            self._metrics.outages.labels(during="asking").inc()
            # Its mark may be there all the same, where only the broker's own connection was broken.
            question.asked_at += UNASKED_AGAIN_SECONDS - LOST_SECONDS[question.ask.name]
            words = {**question.about, "task": question.ask.name, "error": str(error)}
            log.warning("Redis does not answer; asked again soon", **words)
            return
        self._metrics.asks.labels(task=question.ask.name).inc()

    def _publish(self, question: _Open) -> None:
        # Answers are polled for. By itself Celery would subscribe to a channel for each task, and never leave it.
        with self._sending, denied_join_result():
            self._app.send_task(
                _TASKS[question.ask.name],
                kwargs=dict(question.ask.payload),
                queue=CONTROL_QUEUE,
                task_id=question.task_id,
                retry=False,
                ignore_result=False,
            )

    async def poll(self) -> None:
        """Look for answers, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._look()
            except (redis.RedisError, OSError) as error:
                self._metrics.outages.labels(during="polling").inc()
                log.warning("Redis does not answer", error=str(error))
                await asyncio.sleep(POLL_SECONDS * 8)

    def _count_open(self, name: str) -> float:
        return float(sum(question.ask.name == name for question in self._open.values()))

    def _oldest_seconds(self) -> float:
        return max((self._clock() - question.since for question in self._open.values()), default=0.0)

    async def _look(self) -> None:
        questions = list(self._open.values())
        if not questions:
            return
        backend = self._app.backend
        keys = [backend.get_key_for_task(question.task_id) for question in questions]
        found = await self._client.mget([*keys, *(_MARK + question.task_id for question in questions)])
        for question, raw, mark in zip(questions, found, found[len(questions) :], strict=False):
            if raw is not None:
                meta = backend.decode_result(raw)
                if meta.get("status") in ("SUCCESS", "FAILURE", "REVOKED"):
                    self._settle(question, meta)
                    continue
            lost = self._clock() - question.asked_at > LOST_SECONDS[question.ask.name]
            if mark is None or lost:  # Redis was emptied, was down when it was asked, or a worker died with it
                await self._send(question)

    def _settle(self, question: _Open, meta: dict[str, Any]) -> None:
        self._open.pop(question.ask.key, None)
        answer = answer_of(question.ask.name, meta)
        self._answers[question.ask.key] = (self._clock(), answer)
        self._answered(question.ask.key.partition("/")[0])


def answer_of(name: str, meta: dict[str, Any]) -> Answer:
    """A task's result as reconcile reads it. A task that broke down is one to ask again."""
    given = meta.get("result")
    result: dict[str, Any] = given if isinstance(given, dict) else {}
    if meta.get("status") != "SUCCESS" or not isinstance(given, dict):
        result = {"error": {"exitCode": TEMPFAIL, "message": f"the worker's task failed: {str(given)[:300]}"}}
    error: dict[str, Any] = result.get("error") or {}
    message, code = str(error.get("message", "")), int(error.get("exitCode", 0))
    if name == "inspect":
        return Inspection(pin=result.get("prompts"), error=message, exit_code=code)
    if name == "delete_outputs":
        return Removal(error=message)
    found: dict[str, Any] = result.get("finalized") or error
    return Finalization(
        total=int(found.get("total") or 0),
        stored=int(found.get("stored") or 0),
        bytes=int(found.get("bytes") or 0),
        manifest=str(found.get("manifest") or "").rpartition("/")[2],
        gallery=str(found.get("gallery") or "").rpartition("/")[2],
        note=str(found.get("note") or ""),
        error=message,
        exit_code=code,
    )


def _again(answer: Answer) -> bool:
    if isinstance(answer, Removal):
        return bool(answer.error)
    return answer.exit_code == TEMPFAIL
