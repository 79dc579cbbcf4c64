"""Carries plans out: the children first, then the status once, then the Events that tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from frazil_jobs.api.base import API_VERSION
from frazil_jobs.base.log import get_logger
from frazil_operator.build.labels import JOB_UID, MANAGER, OUTPUTS_FINALIZER
from frazil_operator.engine.control import Control
from frazil_operator.engine.queue import WorkQueue
from frazil_operator.engine.state import State
from frazil_operator.kube.client import Conflict, Forbidden, Invalid, Kube, KubeError, NotFound
from frazil_operator.kube.merging import merge_patch
from frazil_operator.kube.paths import path_of
from frazil_operator.reconcile.plan import Deletion, Event, Key, Object, Patch, Plan

log = get_logger(__name__)
_UNKNOWN_USER: Final = 401


class Refused(Exception):
    """An object of a plan can't be made now; the words are for the job's status."""

    def __init__(self, words: str, cause: KubeError) -> None:
        super().__init__(words)
        self.cause = cause


class Writer:
    """All that the operator writes for a job."""

    def __init__(
        self, kube: Kube, state: State, queue: WorkQueue[Key], control: Control, *, clock: Callable[[], datetime]
    ) -> None:
        self._kube = kube
        self._state = state
        self._queue = queue
        self._control = control
        self._clock = clock

    async def carry_out(self, key: Key, job: Object, plan: Plan) -> bool:
        """Do what a plan says; whether anything was written. Raises KubeError, and Refused."""
        for ask in plan.asks:
            await self._control.ask(ask)
        for deletion in plan.delete:
            await self._delete(deletion)
        for patch in plan.patch:
            await self._patch(patch)
        await asyncio.gather(*(self._is_there(thing) for thing in plan.apply))
        gone = [thing for thing in plan.ensure if not await self._is_there(thing)]
        for thing in (*gone, *plan.apply):
            await self._apply(thing)
        if plan.finalizers is not None:
            await self._finalizers(key, job, plan.finalizers)
            job = self._state.job(key) or job
        written = plan.status is not None and await self._status(key, job, plan)
        wrote = bool(written or plan.delete or plan.patch or gone or plan.apply or plan.finalizers is not None)
        if wrote:
            await asyncio.gather(*(self._post(key, job, event) for event in plan.events))
        if plan.delete_job:
            path = path_of(API_VERSION, key.kind, key.namespace, key.name)
            await self._kube.delete(key.kind, path, uid=str(job["metadata"]["uid"]))
            log.info("its time to live is over: deleted")
        return wrote

    async def _is_there(self, thing: Object) -> bool:
        """Whether an object that is to be applied is there. Server-side apply would take over one of somebody else that
        happens to have the name: raises Refused."""
        kind, meta = str(thing["kind"]), thing["metadata"]
        uid, name = meta["labels"][JOB_UID], meta["name"]
        if any(child["metadata"]["name"] == name for child in self._state.children(uid).get(kind.lower(), ())):
            return True
        try:
            there = await self._kube.get(path_of(thing["apiVersion"], kind, meta["namespace"], name))
        except NotFound:
            return False
        if (there["metadata"].get("labels") or {}).get(JOB_UID) != uid:
            words = f"there is a {kind} {name!r} that is not of this job: delete it, or rename the job"
            raise Refused(words, Conflict(409, "AlreadyExists", words))
        return True

    async def _apply(self, thing: Object) -> None:
        try:
            self._state.wrote(await self._kube.apply(thing))
        except (Invalid, Forbidden) as error:
            if error.status == _UNKNOWN_USER:  # says nothing of the object
                raise
            words = f"{thing['kind']} {thing['metadata']['name']!r} is refused: {error.message or error.reason}"
            raise Refused(words, error) from None

    async def _delete(self, deletion: Deletion) -> None:
        path = path_of(deletion.api_version, deletion.kind, deletion.namespace, deletion.name)
        try:
            await self._kube.delete(
                deletion.kind, path, uid=deletion.uid, propagation=deletion.propagation, grace=deletion.grace_seconds
            )
        except Conflict:
            log.info("it's another object by now; left alone", object=f"{deletion.kind} {deletion.name}")

    async def _patch(self, patch: Patch) -> None:
        body: dict[str, Any] = dict(patch.body)
        body["metadata"] = {**body.get("metadata", {}), "resourceVersion": patch.resource_version}
        path = path_of(patch.api_version, patch.kind, patch.namespace, patch.name, status=patch.status)
        self._state.wrote(await self._kube.merge(patch.kind, path, body))

    async def _finalizers(self, key: Key, job: Object, wanted: tuple[str, ...]) -> None:
        others = [one for one in job["metadata"].get("finalizers") or () if one != OUTPUTS_FINALIZER]
        meta = {"finalizers": [*others, *wanted], "resourceVersion": job["metadata"]["resourceVersion"]}
        path = path_of(API_VERSION, key.kind, key.namespace, key.name)
        try:
            self._state.wrote(await self._kube.merge(key.kind, path, {"metadata": meta}))
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
            self._state.wrote(await self._kube.merge(key.kind, path, body))
        except NotFound:
            self._queue.drop(key)  # dask #810: a job that is gone is not tried again
            return False
        log.info("status", phase=plan.status.get("phase"))
        return True

    async def _post(self, key: Key, job: Object, event: Event) -> None:
        """An Event is a courtesy: one that can't be posted is only logged."""
        now = self._clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
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
            await self._kube.create("Event", path_of("v1", "Event", key.namespace), body)
        except KubeError as error:
            log.warning("an Event can't be posted", reason=event.reason, error=str(error))
