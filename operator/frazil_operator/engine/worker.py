"""One reconcile after the other: observe, decide, have the plan carried out, look again when it's due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, cast

import structlog

from frazil_jobs.base.log import get_logger
from frazil_operator.engine.control import Control
from frazil_operator.engine.metrics import Metrics
from frazil_operator.engine.progress import ProgressBoard
from frazil_operator.engine.queue import WorkQueue
from frazil_operator.engine.state import State, named
from frazil_operator.engine.writer import Refused, Writer
from frazil_operator.kube.client import Conflict, Forbidden, Invalid, Kube, KubeError, NotFound
from frazil_operator.kube.paths import path_of
from frazil_operator.reconcile.outputs import question
from frazil_operator.reconcile.plan import (
    Finalization,
    GangSupport,
    Inspection,
    Key,
    Object,
    Observed,
    Plan,
    Removal,
)
from frazil_operator.reconcile.reconcile import reconcile
from frazil_operator.settings import Settings

log = get_logger(__name__)
_CONFIG_MAP_AGAIN_SECONDS: Final = 15.0


@dataclass
class Known:
    """What all workers share."""

    kube: Kube
    state: State
    queue: WorkQueue[Key]
    control: Control
    board: ProgressBoard
    settings: Settings
    metrics: Metrics
    gang: GangSupport = field(default_factory=GangSupport)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)


class Worker:
    """One of the operator's workers."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._writer = Writer(known.kube, known.state, known.queue, known.control, clock=known.clock)
        self._wrote_at: float | None = None
        """When the last write of the reconcile in hand was answered (monotonic)."""

    async def run(self) -> None:
        """Work until cancelled."""
        known = self._known
        while True:
            key, added_at = await known.queue.get()
            known.metrics.waited_seconds.observe(max(0.0, time.monotonic() - added_at))
            started, self._wrote_at = time.perf_counter(), None
            structlog.contextvars.bind_contextvars(**named(key, known.state.job(key)))
            try:
                result = await self._once(key)
            finally:
                known.queue.done(key)
                structlog.contextvars.unbind_contextvars("job", "namespace", "kind", "attempt")
            known.metrics.reconciles.labels(result=result).inc()
            if self._wrote_at is not None:
                known.metrics.event_to_write_seconds.observe(self._wrote_at - added_at)
            known.metrics.reconcile_seconds.observe(time.perf_counter() - started)
            known.metrics.queue_depth.set(len(known.queue))
            await asyncio.sleep(
                0
            )  # a reconcile that writes nothing waits for nothing: the lease must be renewed all the same

    async def _once(self, key: Key) -> str:
        """One reconcile; whatever it ends with, the key is looked at again when it should be."""
        known = self._known
        try:
            again = await self.reconcile(key)
        except Conflict as error:
            log.debug("somebody else wrote since; again soon", error=str(error))
            known.queue.retry(key)
            return "conflict"
        except KubeError as error:
            pause = known.queue.retry(key)
            say = log.error if isinstance(error, Invalid | Forbidden) else log.warning
            say("the API server refused", error=str(error), again_in=round(pause, 1))
            return "error"
        except Exception:
            pause = known.queue.retry(key)
            log.exception("reconcile broke down", again_in=round(pause, 1))
            return "error"
        known.queue.forget(key)
        if again is not None:
            known.queue.add_after(key, again)
        return "ok"

    async def reconcile(self, key: Key) -> float | None:
        """Observe, decide, act; seconds until the next look, if one is due. Raises KubeError."""
        known = self._known
        job = known.state.job(key)
        if job is None:
            known.queue.drop(key)
            return None
        observed = await self._observe(key, job)
        plan = reconcile(observed, known.clock(), known.settings)
        if plan.read_config_map is not None:
            text, problem = await self._config_map(key, *plan.read_config_map)
            answer = Inspection(error=problem, exit_code=75) if problem else None
            observed = replace(observed, config_map_text=text, inspection=answer or observed.inspection)
            plan = reconcile(observed, known.clock(), known.settings)
            if problem:
                await self._carry_out(key, job, plan)
                return _CONFIG_MAP_AGAIN_SECONDS
        elif plan.look_at_namespace and await self._known.kube.namespace_ends(key.namespace):
            log.info("its namespace is being deleted: the job's pods are let go")
            plan = reconcile(replace(observed, namespace_ends=True), known.clock(), known.settings)
        try:
            await self._carry_out(key, job, plan)
        except Refused as error:
            # Said in the status, and tried again with growing pauses: quotas are raised, and names get free.
            job = known.state.job(key) or job
            observed = replace(await self._observe(key, job), refused=str(error))
            await self._carry_out(key, job, reconcile(observed, known.clock(), known.settings))
            raise error.cause from None
        return plan.requeue_after

    async def _carry_out(self, key: Key, job: Object, plan: Plan) -> None:
        if plan.status is not None:
            structlog.contextvars.bind_contextvars(attempt=plan.status.get("attempt", 0))
        if await self._writer.carry_out(key, job, plan):
            self._wrote_at = time.monotonic()

    async def _observe(self, key: Key, job: Object) -> Observed:
        known = self._known
        uid = str(job["metadata"]["uid"])
        return Observed(
            job=job,
            children=known.state.children(uid),
            inspection=cast("Inspection | None", known.control.answer(uid, "inspect")),
            inspect_asked_seconds=known.control.asked_seconds(uid, "inspect"),
            finalization=cast("Finalization | None", known.control.answer(uid, question(key.kind, job["spec"]))),
            removal=cast("Removal | None", known.control.answer(uid, "delete")),
            progress=known.board.of(uid),
            gang=known.gang,
            strangers=known.state.strangers(key, uid),
        )

    async def _config_map(self, key: Key, name: str, entry: str) -> tuple[str | None, str]:
        """The text of a ConfigMap's key, or why there is none."""
        path = path_of("v1", "ConfigMap", key.namespace, name)
        try:
            found = await self._known.kube.get(path)
        except NotFound:
            return None, f"spec.prompts.configMapRef: there is no ConfigMap {name!r} in {key.namespace}"
        data = found.get("data") or {}
        if entry not in data:
            known = ", ".join(sorted(data)) or "none"
            return None, f"spec.prompts.configMapRef: {name!r} has no key {entry!r} (it has: {known})"
        return str(data[entry]), ""
