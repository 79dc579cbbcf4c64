"""What is done with what the watches tell, by the handlers that are registered."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf

from frazil_operator.engine.handlers import register
from frazil_operator.engine.queue import WorkQueue
from frazil_operator.engine.state import State
from frazil_operator.reconcile.plan import Key

KEY = Key("GenerationJob", "team", "ice")
LABELS = {"frazil.dev/job-uid": "u1", "frazil.dev/kind": "GenerationJob", "frazil.dev/job-name": "ice"}


class Told:
    """A state, a queue, and the handlers between them and kopf."""

    def __init__(self) -> None:
        self.state, self.queue = State(), WorkQueue()
        self.heard: list[tuple[str, str]] = []
        self.gone: list[str] = []
        registry = kopf.OperatorRegistry()
        register(
            registry,
            state=self.state,
            queue=self.queue,
            heard=lambda kind, namespace: self.heard.append((kind, namespace)),
            gone=self.gone.append,
            podgroups="scheduling.k8s.io/v1beta1",
            workloads=None,
        )
        handlers = [*registry._indexing.get_all_handlers(), *registry._watching.get_all_handlers()]
        self.handlers = {str(handler.id): handler.fn for handler in handlers}

    def tell(self, plural: str, kind: str, body: dict[str, Any]) -> None:
        """As kopf does: the index first (not for what was deleted), then the event."""
        meta = body["metadata"]
        given = {"body": body, "namespace": meta["namespace"], "name": meta["name"], "logger": None}

        async def story() -> None:
            if kind != "DELETED":
                await self.handlers[f"index-{plural}"](**given)
            await self.handlers[f"event-{plural}"](event={"type": kind, "object": body}, **given)

        asyncio.run(story())


def thing(name: str, uid: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    meta = {"name": name, "namespace": "team", "uid": uid, "resourceVersion": "7", "labels": labels or {}}
    return {"metadata": meta, "spec": {}, "status": {}}


def test_a_job_and_its_children_are_known_and_the_job_is_looked_at():
    told = Told()
    told.tell("generationjobs", "ADDED", thing("ice", "u1"))
    assert told.state.job(KEY) is not None
    assert len(told.queue) == 1
    for plural, kind in (("jobs", "job"), ("pods", "pod"), ("podgroups", "podgroup")):
        told.tell(plural, "ADDED", thing("ice-a0", f"uid-{plural}", LABELS))
        assert len(told.state.children("u1")[kind]) == 1
    assert len(told.queue) == 1, "once, however much is told"
    assert {kind for kind, _ in told.heard} == {"GenerationJob", "Job", "Pod", "PodGroup"}


def test_what_was_deleted_is_forgotten():
    told = Told()
    told.tell("generationjobs", "ADDED", thing("ice", "u1"))
    told.tell("jobs", "ADDED", thing("ice-a0", "c1", LABELS))
    told.tell("jobs", "DELETED", thing("ice-a0", "c1", LABELS))
    assert told.state.children("u1") == {}
    told.tell("generationjobs", "DELETED", thing("ice", "u1"))
    assert told.state.job(KEY) is None
    assert told.gone == ["u1"]
