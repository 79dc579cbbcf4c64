"""One reconcile on an API server in memory: what is written, in which order, and what a refusal leads to.

The server knows objects by their paths and versions of nothing else; the real one is in tests/cluster.
"""

from __future__ import annotations

import asyncio
import copy
import time
from datetime import timedelta
from typing import Any

import pytest
import structlog
from log_lines import ABOUT, log_lines
from operator_world import NOW, SETTINGS, UID, generation_job, merge, pin

from frazil_operator.engine.metrics import Metrics
from frazil_operator.engine.queue import WorkQueue
from frazil_operator.engine.state import State
from frazil_operator.engine.worker import Known, Worker
from frazil_operator.kube.client import Conflict, Forbidden, Invalid, KubeError, NotFound
from frazil_operator.kube.paths import path_of
from frazil_operator.reconcile.plan import Inspection, Key

KEY = Key("GenerationJob", "team", "ice")
JOB = path_of("frazil.dev/v1alpha1", "GenerationJob", "team", "ice")
GANGS = {"workers": {"nodesPerReplica": 2, "gpusPerNode": 1}, "parallelism": {"conditioning": 2}}


class Server:
    """Holds objects by path; refuses what it's told to."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, str]] = []
        self.events: list[str] = []
        self.refuse: dict[str, KubeError] = {}
        self.ends = False
        self.tries = 0
        self._version = 10

    def put(self, path: str, thing: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        thing = copy.deepcopy(thing)
        thing["metadata"] = {"uid": f"uid-{self._version}", **thing["metadata"], "resourceVersion": str(self._version)}
        self.objects[path] = thing
        return copy.deepcopy(thing)

    async def get(self, path: str) -> dict[str, Any]:
        if path not in self.objects:
            raise NotFound(404, "NotFound", path)
        return copy.deepcopy(self.objects[path])

    async def apply(self, thing: Any) -> dict[str, Any]:
        kind, meta = thing["kind"], thing["metadata"]
        self._may(kind)
        self.writes.append(("apply", kind))
        path = path_of(thing["apiVersion"], kind, meta["namespace"], meta["name"])
        there = self.objects.get(path, {"metadata": {}})
        merge(there, dict(thing))
        return self.put(path, there)

    async def merge(self, kind: str, path: str, body: Any) -> dict[str, Any]:
        path, _, status = path.partition("/status")
        self._may("status" if status == "" and _ == "/status" else kind)
        there = await self.get(path)
        if (
            body["metadata"].get("resourceVersion", there["metadata"]["resourceVersion"])
            != there["metadata"]["resourceVersion"]
        ):
            raise Conflict(409, "Conflict", path)
        self.writes.append(("merge", "status" if _ else kind))
        merge(there, {name: value for name, value in body.items() if name != "metadata"})
        merge(there["metadata"], {n: v for n, v in body["metadata"].items() if n != "resourceVersion"})
        return self.put(path, there)

    async def create(self, kind: str, path: str, body: Any) -> dict[str, Any]:
        self._may("Event")
        self.events.append(body["reason"])
        return dict(body)

    async def delete(self, kind: str, path: str, **_: Any) -> None:
        self._may(f"delete {kind}")
        self.objects.pop(path, None)

    async def namespace_ends(self, namespace: str) -> bool:
        self.tries += 1
        return self.ends

    def _may(self, kind: str) -> None:
        if kind in self.refuse:
            raise self.refuse[kind]


class Answered:
    """A worker Deployment that has inspected everything."""

    async def ask(self, ask: Any) -> None:
        pass

    def answer(self, uid: str, name: str) -> Inspection | None:
        return Inspection(pin=pin()) if name == "inspect" else None

    def asked_seconds(self, uid: str, name: str) -> None:
        return None


class NoBoard:
    def of(self, uid: str) -> None:
        return None


class Bench:
    """A worker and all that it works with."""

    def __init__(self, **spec: Any) -> None:
        self.server, self.state = Server(), State()
        self.queue: WorkQueue[Key] = WorkQueue(jitter=lambda: 0.5)
        self.now = NOW
        known = Known(
            self.server, self.state, self.queue, Answered(), NoBoard(), SETTINGS, Metrics(), clock=lambda: self.now
        )
        self.worker = Worker(known)
        body = generation_job(**spec)
        self.server.put(JOB, {**body, "metadata": {**body["metadata"], "uid": UID}})
        self.watch()

    def watch(self) -> None:
        """The watches catch up."""
        self.state.see_job(KEY, copy.deepcopy(self.server.objects[JOB]), deleted=False)
        for thing in self.server.objects.values():
            if thing["kind"] in ("Job", "Pod", "PodGroup"):
                self.state.see_child(thing["kind"], copy.deepcopy(thing), deleted=False)

    async def look(self) -> str:
        return await self.worker._once(KEY)

    async def work(self) -> None:
        """As the loop of the worker does it, until nothing waits."""
        self.queue.add(KEY)
        working = asyncio.create_task(self.worker.run())
        while len(self.queue) or self.queue._working:
            await asyncio.sleep(0)
        working.cancel()

    @property
    def status(self) -> dict[str, Any]:
        return self.server.objects[JOB].get("status") or {}

    def condition(self, kind: str) -> dict[str, Any]:
        return next(one for one in self.status["conditions"] if one["type"] == kind)


def story(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, timeout=30))


def test_children_come_first_then_the_status_once_and_then_nothing():
    async def work():
        bench = Bench()
        assert await bench.look() == "ok"
        assert bench.server.writes == [("apply", "ConfigMap"), ("apply", "Job"), ("merge", "status")]
        for _ in range(3):
            bench.watch()
            assert await bench.look() == "ok"
        assert len(bench.server.writes) == 3

    story(work())


def test_its_own_writes_count_before_the_watch_tells_of_them():
    async def work():
        bench = Bench()
        for _ in range(3):
            assert await bench.look() == "ok"
        assert len(bench.server.writes) == 3

    story(work())


FOREIGN = {
    "ConfigMap": ("v1", "ice-a0", {}),
    "Job": ("batch/v1", "ice-a0", {}),
    "Service": ("v1", "ice", GANGS),
}


@pytest.mark.parametrize(("kind", "given"), FOREIGN.items(), ids=FOREIGN)
@pytest.mark.parametrize("labels", [{}, {"frazil.dev/job-uid": "another"}], ids=["somebody's", "an earlier job's"])
def test_an_object_of_somebody_else_that_has_the_name_is_left_alone_and_said(kind, given, labels):
    version, name, spec = given

    async def work():
        bench = Bench(**spec)
        path = path_of(version, kind, "team", name)
        thing = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "team", "labels": labels}}
        theirs = bench.server.put(path, {**thing, "data": {"a": "b"}})
        assert await bench.look() == "conflict"
        assert bench.server.objects[path] == theirs
        assert bench.server.writes == [("merge", "status")]
        ready = bench.condition("PodsReady")
        assert ready["reason"] == "Refused"
        assert f"{kind} '{name}'" in ready["message"]
        assert "Refused" in bench.server.events
        bench.watch()
        assert await bench.look() == "conflict"
        assert bench.server.writes == [("merge", "status")], "said once"
        del bench.server.objects[path]
        bench.state._children.clear()
        assert await bench.look() == "ok"
        assert ("apply", kind) in bench.server.writes
        assert bench.condition("PodsReady")["reason"] == "WaitingForPods"

    story(work())


@pytest.mark.parametrize(
    "error",
    [
        Forbidden(403, "Forbidden", "exceeded quota: jobs, requested: count/jobs.batch=1, limited: 0"),
        Invalid(422, "Invalid", "spec.template.spec.runtimeClassName: Invalid value"),
        Invalid(400, "BadRequest", "admission webhook said no"),
    ],
    ids=lambda error: str(error.status),
)
def test_what_the_api_server_says_of_a_child_is_in_the_status_and_it_is_tried_again_ever_later(error):
    async def work():
        bench = Bench()
        bench.server.refuse["Job"] = error
        pauses = []
        for _ in range(4):
            assert await bench.look() == "error"
            pauses.append(bench.queue._timers[KEY][0] - bench.queue._clock())
            bench.queue._timers.pop(KEY)[1].cancel()
            bench.watch()
        assert pauses == sorted(pauses)
        assert pauses[-1] > 4 * pauses[0]
        assert error.message in bench.condition("PodsReady")["message"]
        assert "Failed" not in {one["type"] for one in bench.status["conditions"] if one["status"] == "True"}
        assert bench.server.writes.count(("merge", "status")) == 1
        del bench.server.refuse["Job"]
        assert await bench.look() == "ok"
        assert bench.condition("PodsReady")["reason"] == "WaitingForPods"
        assert bench.status["jobs"][0]["name"] == "ice-a0"

    story(work())


def test_every_line_about_a_job_names_it_and_its_attempt(monkeypatch):
    """By these words a person finds all that was said of one job."""
    lines = log_lines(monkeypatch)

    async def work():
        bench = Bench(**GANGS)
        bench.server.refuse = {"Job": Forbidden(403, "Forbidden", "exceeded quota"), "Event": Invalid(400, "", "no")}
        await bench.work()
        for said in ("status", "an Event can't be posted", "the API server refused"):
            assert lines.said(said)["attempt"] == 0
        bench.server.refuse = {}
        bench.watch()
        await bench.work()
        (path,) = [path for path, thing in bench.server.objects.items() if thing["kind"] == "Job"]
        ended = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}
        bench.server.objects[path]["status"] = {"conditions": [ended]}
        bench.server.refuse = {"delete Job": Conflict(409, "Conflict", "uid")}
        bench.watch()
        await bench.work()
        assert lines.said("status")["attempt"] == 1, "the one that it has made"
        bench.watch()
        await bench.work()
        assert lines.said("it's another object by now")["attempt"] == 1
        monkeypatch.setattr(bench.worker, "reconcile", None)
        await bench.work()
        assert lines.said("reconcile broke down")["attempt"] == 1
        for timer in bench.queue._timers.values():
            timer[1].cancel()

    story(work())
    assert [line for line in lines if not line.keys() >= ABOUT] == []
    assert {(line["job"], line["namespace"], line["kind"]) for line in lines} == {("ice", "team", "GenerationJob")}
    assert structlog.contextvars.get_contextvars().keys() & ABOUT == set(), "the next job's lines are its own"


def test_what_pods_wait_for_is_looked_for_and_made_again_where_it_is_gone():
    async def work():
        bench = Bench()
        assert await bench.look() == "ok"
        bench.watch()
        path = path_of("v1", "ConfigMap", "team", "ice-a0")
        placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": NOW.isoformat()}
        pod = {"kind": "Pod", "apiVersion": "v1", "status": {"phase": "Pending", "conditions": [placed]}}
        labels = bench.server.objects[path]["metadata"]["labels"]
        meta = {"name": "ice-a0-0-x", "namespace": "team", "uid": "p1", "labels": labels}
        bench.state.see_child("Pod", {**pod, "metadata": meta}, deleted=False)
        bench.now += timedelta(seconds=61)
        bench.state._clock = lambda: time.monotonic() + 61
        before = len(bench.server.writes)
        assert await bench.look() == "ok"
        assert ("apply", "ConfigMap") not in bench.server.writes[before:]
        made = bench.server.objects.pop(path)
        assert await bench.look() == "ok"
        assert bench.server.objects[path]["data"] == made["data"]
        assert bench.server.writes[before:].count(("apply", "ConfigMap")) == 1
        bench.server.put(path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {}}})
        bench.state._clock = lambda: time.monotonic() + 122
        assert await bench.look() == "conflict"
        assert bench.condition("PodsReady")["reason"] == "Refused"

    story(work())


def test_a_token_that_is_not_known_says_nothing_of_the_job():
    async def work():
        bench = Bench()
        bench.server.refuse["Job"] = Forbidden(401, "Unauthorized", "Unauthorized")
        assert await bench.look() == "error"
        assert bench.status == {}

    story(work())


def test_a_status_that_somebody_else_wrote_since_is_looked_at_again():
    async def work():
        bench = Bench()
        bench.server.put(JOB, bench.server.objects[JOB])
        assert await bench.look() == "conflict"
        bench.watch()
        assert await bench.look() == "ok"

    story(work())


def test_a_job_that_is_gone_when_its_status_is_written_is_not_tried_again():
    async def work():
        bench = Bench()
        del bench.server.objects[JOB]
        assert await bench.look() == "ok"
        bench.state.see_job(KEY, generation_job(), deleted=True)
        assert await bench.look() == "ok"
        assert bench.queue._timers == {}
        assert ("merge", "status") not in bench.server.writes

    story(work())


def test_the_namespace_is_looked_at_when_a_pod_is_held_and_its_jobs_go_with_it():
    async def work():
        bench = Bench()
        await bench.look()
        (job,) = [thing for thing in bench.server.objects.values() if thing["kind"] == "Job"]
        due = (NOW + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "ice-a0-0-x",
                "namespace": "team",
                "labels": job["metadata"]["labels"],
                "deletionTimestamp": due,
            },
            "status": {"phase": "Failed"},
        }
        bench.server.put(path_of("v1", "Pod", "team", "ice-a0-0-x"), pod)
        bench.watch()
        bench.now += timedelta(seconds=70)
        assert await bench.worker.reconcile(KEY) == pytest.approx(5)
        assert bench.server.tries == 0, "it may be on its way out"
        bench.now += timedelta(seconds=5)
        assert await bench.worker.reconcile(KEY) == pytest.approx(15)
        assert bench.server.tries == 1
        assert path_of("batch/v1", "Job", "team", "ice-a0") in bench.server.objects
        bench.server.ends = True
        await bench.worker.reconcile(KEY)
        assert path_of("batch/v1", "Job", "team", "ice-a0") not in bench.server.objects

    story(work())
