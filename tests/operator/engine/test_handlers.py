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
            workloads="kueue.x-k8s.io/v1beta1",
        )
        self.handlers = {str(handler.id): handler.fn for handler in registry._watching.get_all_handlers()}
        self.indexed = list(registry._indexing.get_all_handlers())

    def tell(self, plural: str, kind: str, body: dict[str, Any]) -> None:
        """As kopf does."""
        meta = body["metadata"]
        given = {"body": body, "namespace": meta["namespace"], "name": meta["name"], "logger": None}
        asyncio.run(self.handlers[f"event-{plural}"](event={"type": kind, "object": body}, **given))


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


def test_a_workload_that_is_told_before_its_job_is_kept_for_it():
    """Kinds are listed in any order."""
    told = Told()
    workload = thing("w", "w1", {"kueue.x-k8s.io/job-uid": "c1"})
    told.tell("workloads", "ADDED", workload)
    told.tell("workloads", "ADDED", thing("other", "w2", {"kueue.x-k8s.io/job-uid": "c2"}))
    told.tell("generationjobs", "ADDED", thing("ice", "u1"))
    told.tell("jobs", "ADDED", thing("ice-a0", "c1", LABELS))
    (found,) = told.state.children("u1")["workload"]
    assert found["metadata"]["uid"] == "w1"
    known = {one.uid for one in told.state.versions()}
    assert known == {"u1", "c1", "w1", "w2"}
    told.tell("workloads", "DELETED", thing("other", "w2", {"kueue.x-k8s.io/job-uid": "c2"}))
    assert "w2" not in {one.uid for one in told.state.versions()}


def test_a_workload_whose_job_is_gone_first_is_forgotten_with_its_own_end():
    """As the garbage collector does it: else the watchdog would find it missing for ever."""
    told = Told()
    workload = thing("w", "w1", {"kueue.x-k8s.io/job-uid": "c1"})
    told.tell("generationjobs", "ADDED", thing("ice", "u1"))
    told.tell("jobs", "ADDED", thing("ice-a0", "c1", LABELS))
    told.tell("workloads", "ADDED", workload)
    told.tell("jobs", "DELETED", thing("ice-a0", "c1", LABELS))
    assert told.state.children("u1") == {}
    told.tell("workloads", "DELETED", workload)
    assert {one.uid for one in told.state.versions()} == {"u1"}


def test_the_switch_of_a_workload_is_known():
    """By it a job in a queue is stopped, and goes on."""
    told = Told()
    told.tell("generationjobs", "ADDED", thing("ice", "u1"))
    told.tell("jobs", "ADDED", thing("ice-a0", "c1", LABELS))
    workload = thing("w", "w1", {"kueue.x-k8s.io/job-uid": "c1"}) | {"spec": {"active": False, "podSets": [1]}}
    told.tell("workloads", "MODIFIED", workload)
    (found,) = told.state.children("u1")["workload"]
    assert found["spec"] == {"active": False}


def test_kopf_fills_no_indices():
    """Its way to fill them takes time with the square of the number of objects."""
    assert Told().indexed == []
