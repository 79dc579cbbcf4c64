"""A small world for reconcile: carries plans out on dictionaries, so that a job can be followed from apply to its end.

It stands for the API server and the Job controller in tests of decisions only; the real ones are in tests/cluster.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_operator.reconcile.plan import (
    Finalization,
    GangSupport,
    Inspection,
    Observed,
    Patch,
    Plan,
    Progress,
    Removal,
)
from frazil_operator.reconcile.reconcile import reconcile
from frazil_operator.settings import Settings, parse_settings

UID = "0a1b2c3d-0000-4000-8000-000000000000"
NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
SETTINGS = parse_settings({"destinations": [{"uri": "s3://frazil/results"}], "nodeLostSeconds": 60})
KINDS = {"Job": "job", "Pod": "pod", "PodGroup": "podgroup", "Workload": "workload"}


def generation_job(*, name: str = "ice", namespace: str = "team", **spec: Any) -> dict[str, Any]:
    """A GenerationJob as the API server has it; `spec` overrides its sections whole."""
    document = {
        "apiVersion": "frazil.dev/v1alpha1",
        "kind": "GenerationJob",
        "metadata": {"name": name, "namespace": namespace, "uid": UID, "generation": 1, "resourceVersion": "1"},
        "spec": {
            "model": {"uri": "hf://org/model"},
            "prompts": {"inline": [f"prompt {index}" for index in range(10)], "perShard": 4},
            **spec,
        },
    }
    return with_defaults(document, GenerationJob)


def training_job(**spec: Any) -> dict[str, Any]:
    """A TrainingJob of two nodes as the API server has it."""
    document = {
        "apiVersion": "frazil.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "dit", "namespace": "team", "uid": UID, "generation": 1, "resourceVersion": "1"},
        "spec": {
            "task": "CausalLM",
            "model": {"uri": "hf://org/model"},
            "dataset": {"uri": "s3://data/set"},
            "steps": 100,
            "parallelism": {"pipeline": 2},
            "workers": {"nodesPerReplica": 2, "gpusPerNode": 1},
            **spec,
        },
    }
    return with_defaults(document, TrainingJob)


def with_defaults(document: dict[str, Any], kind: type[GenerationJob] | type[TrainingJob]) -> dict[str, Any]:
    """The object with the CRD's defaults, as a server gives it back."""
    return {**document, "spec": kind.model_validate(document).document()["spec"]}


def pin(count: int = 10, per_shard: int = 4) -> dict[str, Any]:
    """What inspection finds."""
    shards = -(-count // per_shard)
    return {
        "sha256": "ab" * 32,
        "count": count,
        "shards": shards,
        "per_shard": per_shard,
        "format": "inline",
        "size": 0,
    }


class Refused(Exception):
    """The API server would answer 422: carried out again it's refused again."""


@dataclass
class World:
    """One job, its children, and the time."""

    body: dict[str, Any]
    settings: Settings = SETTINGS
    now: datetime = NOW
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    inspection: Inspection | None = None
    finalization: Finalization | None = None
    removal: Removal | None = None
    progress: tuple[Progress, ...] | None = None
    gang: GangSupport = field(default_factory=GangSupport)
    config_map_text: str | None = None
    strangers: tuple[str, ...] = ()
    refused: str = ""
    namespace_ends: bool = False
    asked_seconds: float = 60.0
    """How long any question is open."""
    events: list[Any] = field(default_factory=list)
    writes: int = 0
    status_writes: int = 0
    gone: bool = False
    made: list[str] = field(default_factory=list)
    """Names of all Jobs that were ever made, in order."""
    _serial: int = 0

    def observed(self) -> Observed:
        """What reconcile sees just now."""
        children: dict[str, list[dict[str, Any]]] = {}
        for (kind, _), thing in sorted(self.objects.items()):
            if kind in KINDS:
                children.setdefault(KINDS[kind], []).append(copy.deepcopy(thing))
        return Observed(
            job=copy.deepcopy(self.body),
            children={kind: tuple(things) for kind, things in children.items()},
            inspection=self.inspection,
            finalization=self.finalization,
            removal=self.removal,
            progress=self.progress,
            gang=self.gang,
            config_map_text=self.config_map_text,
            strangers=self.strangers,
            refused=self.refused,
            namespace_ends=self.namespace_ends,
            inspect_asked_seconds=self.asked_seconds,
        )

    def plan(self) -> Plan:
        """What reconcile would do, without doing it."""
        return reconcile(self.observed(), self.now, self.settings)

    def step(self, *, dies_after: int | None = None) -> Plan:
        """Reconcile once and carry the plan out, in the engine's order; with `dies_after`, only so many of its writes."""
        plan = self.plan()
        for write in self._writes(plan)[:dies_after]:
            write()
            self.writes += 1
        if dies_after is None:
            self.gone = self.gone or plan.delete_job
        return plan

    def crash_points(self) -> int:
        """Writes of the plan that reconcile would carry out now: the operator may die before each."""
        return len(self._writes(self.plan()))

    def _writes(self, plan: Plan) -> list[Callable[[], None]]:
        """What a plan writes, in the order of frazil_operator.engine.worker."""
        writes: list[Callable[[], None]] = [partial(self.remove, one.kind, one.name) for one in plan.delete]
        writes += [partial(self._patch, patch) for patch in plan.patch]
        gone = [thing for thing in plan.ensure if (thing["kind"], thing["metadata"]["name"]) not in self.objects]
        writes += [partial(self.make, thing) for thing in gone]
        writes += [partial(self.make, thing) for thing in plan.apply]
        if plan.finalizers is not None:
            writes.append(partial(self.body["metadata"].__setitem__, "finalizers", list(plan.finalizers)))
        if plan.status is not None and plan.status != self.body.get("status"):
            writes.append(partial(self._write_status, plan))
        return writes

    def _patch(self, patch: Patch) -> None:
        merge(self.objects[(patch.kind, patch.name)], patch.body)

    def _write_status(self, plan: Plan) -> None:
        self.body["status"] = copy.deepcopy(dict(plan.status or {}))
        self.status_writes += 1
        self.events += plan.events

    def remove(self, kind: str, name: str) -> None:
        """Delete an object, and as garbage collection does, the pods that it owned."""
        if (thing := self.objects.pop((kind, name), None)) is None:
            return
        uid = thing["metadata"]["uid"]
        for key, other in list(self.objects.items()):
            if any(owner.get("uid") == uid for owner in other["metadata"].get("ownerReferences") or ()):
                del self.objects[key]

    def settle(self, *, most: int = 10) -> Plan:
        """Reconcile until nothing is written any more. Fails when that takes too long: something flips for ever."""
        patient = True
        for _ in range(most):
            before = self.writes
            plan = self.step()
            if self.writes == before:
                if not patient or plan.requeue_after is None or plan.requeue_after > self.settings.progress_seconds:
                    return plan
                patient = False
                self.later(plan.requeue_after)  # counts are written a little later
        raise AssertionError(f"still writing after {most} rounds")

    def make(self, thing: Any) -> None:
        """Apply an object: made where there is none; of one that is there only data may change."""
        self._serial += 1
        key = (thing["kind"], thing["metadata"]["name"])
        made = copy.deepcopy(dict(thing))
        if key in self.objects:
            there = self.objects[key]
            assert there["metadata"]["uid"], "applied again"
            if there.get("immutable") and there["data"] != made["data"]:
                raise Refused(f"{key[0]} {key[1]}: data: Forbidden: field is immutable when `immutable` is set")
            if "data" in made:
                there["data"] = made["data"]
            return
        if key[0] == "Job":
            self.made.append(key[1])
        made["metadata"] |= {"uid": f"uid-{self._serial}", "resourceVersion": str(self._serial)}
        self.objects[key] = made

    def job(self, name: str | None = None) -> dict[str, Any]:
        """The only child Job, or the one of a name."""
        jobs = [thing for (kind, found), thing in self.objects.items() if kind == "Job" and name in (None, found)]
        assert len(jobs) == 1, [job["metadata"]["name"] for job in jobs]
        return jobs[0]

    @property
    def jobs(self) -> list[str]:
        """Names of the child Jobs."""
        return sorted(name for kind, name in self.objects if kind == "Job")

    def pod(self, job: str, index: int = 0, **status: Any) -> dict[str, Any]:
        """A pod of a Job, with a status."""
        owner = self.objects[("Job", job)]
        self._serial += 1
        name = f"{job}-{index}-{self._serial}"
        thing = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": owner["metadata"]["namespace"],
                "uid": f"uid-{self._serial}",
                "labels": dict(owner["metadata"]["labels"]),
                "ownerReferences": [{"kind": "Job", "name": job, "uid": owner["metadata"]["uid"]}],
                "creationTimestamp": self.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
            "spec": {"nodeName": "node-1"},
            "status": status,
        }
        self.objects[("Pod", name)] = thing
        return thing

    def failed_pod(self, job: str, code: int, message: str = "", *, container: str = "compute") -> dict[str, Any]:
        """A pod whose container ended with an exit code."""
        end = {"name": container, "state": {"terminated": {"exitCode": code, "message": message}}}
        return self.pod(job, phase="Failed", containerStatuses=[end])

    def idle_pod(self, job: str, **status: Any) -> dict[str, Any]:
        """A pod that has just come to its node."""
        when = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": when}
        waiting = {"name": "fetch", "state": {"waiting": {"reason": "PodInitializing"}}}
        idle = {"phase": "Pending", "conditions": [placed], "initContainerStatuses": [waiting]}
        return self.pod(job, **{**idle, **status})

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def end_job(self, name: str | None, kind: str, *, reason: str = "", message: str = "", **status: Any) -> None:
        """Give a child Job its last condition."""
        job = self.job(name)
        found = {"type": kind, "status": "True", "reason": reason, "message": message}
        job["status"] = {**job.get("status", {}), "active": 0, **status, "conditions": [found]}

    def condition(self, kind: str) -> tuple[str, str] | None:
        """Status and reason of a condition."""
        for one in self.body.get("status", {}).get("conditions", []):
            if one["type"] == kind:
                return one["status"], one["reason"]
        return None

    @property
    def status(self) -> dict[str, Any]:
        """The job's status."""
        return self.body.get("status", {})

    @property
    def phase(self) -> str:
        """The job's phase."""
        return str(self.status.get("phase"))


def merge(target: dict[str, Any], patch: Any) -> None:
    """A JSON merge patch (RFC 7386) in place."""
    for name, value in patch.items():
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            merge(target[name], value)
        elif value is None:
            target.pop(name, None)
        else:
            target[name] = copy.deepcopy(value)


def started(body: dict[str, Any] | None = None, **world: Any) -> World:
    """A world whose job has been inspected and has its child."""
    found = World(body or generation_job(), **world)
    found.inspection = Inspection(pin=pin())
    found.settle()
    return found
