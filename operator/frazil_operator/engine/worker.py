"""Carries plans out: observe, reconcile, write the children, then the status once, then the Events that tell of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, cast

import structlog

from frazil_jobs.api.base import API_VERSION
from frazil_jobs.base.log import get_logger
from frazil_operator.build.labels import MANAGER, OUTPUTS_FINALIZER
from frazil_operator.engine.control import Control
from frazil_operator.engine.metrics import Metrics
from frazil_operator.engine.progress import ProgressBoard
from frazil_operator.engine.queue import WorkQueue
from frazil_operator.engine.state import State
from frazil_operator.kube.client import Conflict, Forbidden, Invalid, Kube, KubeError, NotFound
from frazil_operator.kube.merging import merge_patch
from frazil_operator.kube.paths import path_of
from frazil_operator.reconcile.plan import (
    Deletion,
    Event,
    Finalization,
    GangSupport,
    Inspection,
    Key,
    Object,
    Observed,
    Patch,
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
        self._wrote_at: float | None = None
        """When the last write of the reconcile in hand was answered (monotonic)."""

    async def run(self) -> None:
        """Work until cancelled."""
        known = self._known
        while True:
            key, added_at = await known.queue.get()
            known.metrics.waited_seconds.observe(max(0.0, time.monotonic() - added_at))
            started, self._wrote_at = time.perf_counter(), None
            structlog.contextvars.bind_contextvars(job=key.name, namespace=key.namespace, kind=key.kind)
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
        structlog.contextvars.bind_contextvars(attempt=(job.get("status") or {}).get("attempt", 0))
        plan = reconcile(observed, known.clock(), known.settings)
        if plan.read_config_map is not None:
            text, problem = await self._config_map(key, *plan.read_config_map)
            answer = Inspection(error=problem, exit_code=75) if problem else None
            observed = replace(observed, config_map_text=text, inspection=answer or observed.inspection)
            plan = reconcile(observed, known.clock(), known.settings)
            if problem:
                await self._carry_out(key, job, plan)
                return _CONFIG_MAP_AGAIN_SECONDS
        await self._carry_out(key, job, plan)
        return plan.requeue_after

    async def _observe(self, key: Key, job: Object) -> Observed:
        known = self._known
        uid = str(job["metadata"]["uid"])
        return Observed(
            job=job,
            children=known.state.children(uid),
            inspection=cast("Inspection | None", known.control.answer(uid, "inspect")),
            finalization=cast("Finalization | None", known.control.answer(uid, "finalize")),
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

    async def _carry_out(self, key: Key, job: Object, plan: Plan) -> None:
        known = self._known
        for ask in plan.asks:
            await known.control.ask(ask)
        for deletion in plan.delete:
            await self._delete(deletion)
        for patch in plan.patch:
            await self._patch(patch)
        for thing in plan.apply:
            known.state.wrote(await known.kube.apply(thing))
        if plan.finalizers is not None:
            await self._finalizers(key, job, plan.finalizers)
            job = known.state.job(key) or job
        written = plan.status is not None and await self._status(key, job, plan)
        if written or plan.delete or plan.patch or plan.apply or plan.finalizers is not None:
            self._wrote_at = time.monotonic()
            await asyncio.gather(*(self._post(key, job, event) for event in plan.events))
        if plan.delete_job:
            path = path_of(API_VERSION, key.kind, key.namespace, key.name)
            await known.kube.delete(key.kind, path, uid=str(job["metadata"]["uid"]))
            log.info("its time to live is over: deleted")

    async def _delete(self, deletion: Deletion) -> None:
        path = path_of(deletion.api_version, deletion.kind, deletion.namespace, deletion.name)
        try:
            await self._known.kube.delete(
                deletion.kind, path, uid=deletion.uid, propagation=deletion.propagation, grace=deletion.grace_seconds
            )
        except Conflict:
            log.info("it's another object by now; left alone", name=deletion.name, kind=deletion.kind)

    async def _patch(self, patch: Patch) -> None:
        body: dict[str, Any] = dict(patch.body)
        body["metadata"] = {**body.get("metadata", {}), "resourceVersion": patch.resource_version}
        path = path_of(patch.api_version, patch.kind, patch.namespace, patch.name, status=patch.status)
        self._known.state.wrote(await self._known.kube.merge(patch.kind, path, body))

    async def _finalizers(self, key: Key, job: Object, wanted: tuple[str, ...]) -> None:
        others = [one for one in job["metadata"].get("finalizers") or () if one != OUTPUTS_FINALIZER]
        meta = {"finalizers": [*others, *wanted], "resourceVersion": job["metadata"]["resourceVersion"]}
        path = path_of(API_VERSION, key.kind, key.namespace, key.name)
        try:
            self._known.state.wrote(await self._known.kube.merge(key.kind, path, {"metadata": meta}))
        except NotFound:
            return

    async def _status(self, key: Key, job: Object, plan: Plan) -> bool:
        """Write the status if it differs; whether it was written."""
        assert plan.status is not None
        difference = merge_patch(job.get("status") or {}, plan.status)
        if not difference:
            return False
        body = {"metadata": {"resourceVersion": job["metadata"]["resourceVersion"]}, "status": difference}
        path = path_of(API_VERSION, key.kind, key.namespace, key.name, status=True)
        try:
            self._known.state.wrote(await self._known.kube.merge(key.kind, path, body))
        except NotFound:
            self._known.queue.drop(key)  # dask #810: a job that is gone is not tried again
            return False
        log.info("status", phase=plan.status.get("phase"))
        return True

    async def _post(self, key: Key, job: Object, event: Event) -> None:
        """An Event is a courtesy: one that can't be posted is only logged."""
        now = self._known.clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        meta = job["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{key.name}.", "namespace": key.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": meta["uid"],
                "resourceVersion": meta.get("resourceVersion"),
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "eventTime": now,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "reportingComponent": MANAGER,
            "reportingInstance": MANAGER,
            "action": "Reconcile",
            "source": {"component": MANAGER},
        }
        try:
            await self._known.kube.create("Event", path_of("v1", "Event", key.namespace), body)
        except KubeError as error:
            log.warning("an Event can't be posted", reason=event.reason, error=str(error))
