"""What the operator knows: jobs and children as the watches tell them, and what its own writes have answered since.

A watch may be behind the operator's own writes. Each answer of the API server is kept until the watch has caught up, so that
nothing is made or patched twice for want of patience.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from frazil_operator.build.labels import JOB_NAME, JOB_UID, KIND, QUEUED_JOB
from frazil_operator.reconcile.plan import Key

Body = Mapping[str, Any]
_PATIENCE_SECONDS: Final = 30.0
FINAL: Final = ("Complete", "Failed")
"""Phases of a job that is over."""


class Id(NamedTuple):
    """One object for its whole life."""

    kind: str
    namespace: str
    uid: str


def version_of(body: Body) -> int:
    """A resourceVersion as a number (since Kubernetes 1.35 they may be compared); 0 where it's none."""
    text = str(body["metadata"].get("resourceVersion", ""))
    return int(text) if text.isdecimal() else 0


def _id(kind: str, body: Body) -> Id:
    return Id(kind, str(body["metadata"].get("namespace", "")), str(body["metadata"].get("uid", "")))


def newer(one: Body, other: Body) -> bool:
    """Whether `one` is a later state of the same object."""
    return one["metadata"].get("uid") == other["metadata"].get("uid") and version_of(one) > version_of(other)


def named(key: Key, job: Body | None) -> dict[str, Any]:
    """How log lines name a job: with the attempt that it's at, while it's there."""
    attempt = {} if job is None else {"attempt": (job.get("status") or {}).get("attempt", 0)}
    return {"job": key.name, "namespace": key.namespace, "kind": key.kind, **attempt}


class State:
    """Jobs by key, children by the uid of their job."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: dict[Key, Body] = {}
        self._children: dict[str, dict[tuple[str, str], Body]] = defaultdict(dict)
        self._by_name: dict[tuple[str, str, str], dict[tuple[str, str], Body]] = defaultdict(dict)
        self._fresh_jobs: dict[Key, Body] = {}
        self._fresh_children: dict[str, dict[tuple[str, str], tuple[float, Body]]] = defaultdict(dict)
        self._keys: dict[str, Key] = {}
        self._owners: dict[str, str] = {}
        self._workloads: dict[str, dict[str, Body]] = defaultdict(dict)
        """Kueue's, by the uid of their Job, which may be told later and be gone earlier than they; by name."""

    def see_job(self, key: Key, body: Body, *, deleted: bool) -> None:
        """A GenerationJob or TrainingJob, as a watch tells it."""
        if deleted:
            old = self._jobs.pop(key, None)
            self._fresh_jobs.pop(key, None)
            if old is not None:
                self._keys.pop(str(old["metadata"]["uid"]), None)
                self._fresh_children.pop(str(old["metadata"]["uid"]), None)
            return
        self._jobs[key] = body
        self._keys[str(body["metadata"]["uid"])] = key

    def see_child(self, kind: str, body: Body, *, deleted: bool) -> Key | None:
        """A child, as a watch tells it; the key of its job, if it's known."""
        if kind == "Workload":
            return self._see_workload(body, deleted=deleted)
        meta = body["metadata"]
        uid = self.job_uid_of(kind, body)
        if uid is None:
            return None
        name = (kind, str(meta["name"]))
        labels = meta.get("labels") or {}
        group = (str(labels.get(KIND)), str(meta["namespace"]), str(labels.get(JOB_NAME)))
        if deleted:
            self._forget_written(uid, name, body)
            self._children[uid].pop(name, None)
            self._by_name[group].pop(name, None)
            self._owners.pop(str(meta["uid"]), None)
            if not self._children[uid]:
                del self._children[uid]
            if not self._by_name[group]:
                del self._by_name[group]
        else:
            self._children[uid][name] = body
            if kind == "Job":
                self._by_name[group][name] = body
                self._owners[str(meta["uid"])] = uid
        return self._keys.get(uid) or self._namesake(group)

    def _see_workload(self, body: Body, *, deleted: bool) -> Key | None:
        """It may be told before its Job, and its end after the Job's."""
        meta = body["metadata"]
        job = str((meta.get("labels") or {}).get(QUEUED_JOB))
        uid = self.job_uid_of("Workload", body) or ""
        if deleted:
            self._forget_written(uid, ("Workload", str(meta["name"])), body)
            self._workloads[job].pop(str(meta["name"]), None)
            if not self._workloads[job]:
                del self._workloads[job]
        else:
            self._workloads[job][str(meta["name"])] = body
        return self._keys.get(uid)

    def _forget_written(self, uid: str, name: tuple[str, str], body: Body) -> None:
        """What was written to an object that is gone."""
        written = self._fresh_children.get(uid, {})
        if name in written and written[name][1]["metadata"].get("uid") == body["metadata"]["uid"]:
            del written[name]

    def job_uid_of(self, kind: str, body: Body) -> str | None:
        """The uid of the job that a child belongs to: by its label, or (Kueue's Workload) through its Job."""
        labels = body["metadata"].get("labels") or {}
        if kind == "Workload":
            return self._owners.get(str(labels.get(QUEUED_JOB)))
        found = labels.get(JOB_UID)
        return str(found) if found else None

    def wrote(self, body: Body) -> None:
        """The API server's answer to a write: newer than what the watch has told so far."""
        kind, meta = str(body["kind"]), body["metadata"]
        if kind in ("GenerationJob", "TrainingJob"):
            self._fresh_jobs[Key(kind, str(meta["namespace"]), str(meta["name"]))] = body  # type: ignore[arg-type]
        elif (uid := self.job_uid_of(kind, body)) is not None:
            self._fresh_children[uid][(kind, str(meta["name"]))] = (self._clock(), body)

    def job(self, key: Key) -> Body | None:
        """The newest that is known of a job; None when it's gone."""
        seen = self._jobs.get(key)
        if seen is None:
            return None
        fresh = self._fresh_jobs.get(key)
        if fresh is None or newer(fresh, seen):
            return fresh or seen
        del self._fresh_jobs[key]
        return seen

    def children(self, uid: str) -> dict[str, tuple[Body, ...]]:
        """The children of a job, by lower-case kind, by name."""
        found = dict(self._children.get(uid, {}))
        for (kind, _), body in self._children.get(uid, {}).items():
            if kind == "Job":
                workloads = self._workloads.get(str(body["metadata"]["uid"]), {})
                found |= {("Workload", name): workload for name, workload in workloads.items()}
        fresh = self._fresh_children.get(uid, {})
        for name, (since, body) in list(fresh.items()):
            seen = found.get(name)
            unseen = seen is None and self._clock() - since < _PATIENCE_SECONDS
            if unseen or (seen is not None and newer(body, seen)):
                found[name] = body
            else:
                del fresh[name]
        grouped: dict[str, list[Body]] = defaultdict(list)
        for (kind, _), body in sorted(found.items(), key=lambda one: one[0]):
            grouped[kind.lower()].append(body)
        return {kind: tuple(bodies) for kind, bodies in grouped.items()}

    def strangers(self, key: Key, uid: str) -> tuple[str, ...]:
        """Jobs (batch/v1) of a job of this name that was another."""
        group = self._by_name.get((key.kind, key.namespace, key.name), {})
        return tuple(sorted(name for (kind, name), body in group.items() if self.job_uid_of(kind, body) != uid))

    def all_keys(self) -> list[Key]:
        """All jobs."""
        return list(self._jobs)

    def phase(self, key: Key) -> str:
        """The phase that a job's status says."""
        return str(((self.job(key) or {}).get("status") or {}).get("phase") or "")

    def at_work(self) -> list[tuple[Key, Body]]:
        """The jobs whose pods may be telling how far they are."""
        return [
            (key, job)
            for key in self.all_keys()
            if (job := self.job(key)) is not None and self.phase(key) not in ("", *FINAL, "Suspended", "Queued")
        ]

    def key_of(self, uid: str) -> Key | None:
        """The job of a uid."""
        return self._keys.get(uid)

    def versions(self) -> dict[Id, int]:
        """What the watches have told, by object."""
        found = {_id(key.kind, body): version_of(body) for key, body in self._jobs.items()}
        for children in self._children.values():
            found |= {_id(kind, body): version_of(body) for (kind, _), body in children.items()}
        for workloads in self._workloads.values():
            found |= {_id("Workload", body): version_of(body) for body in workloads.values()}
        return found

    def lose(self, one: Id) -> Key | None:
        """An object is gone, though no watch told it; the job to look at."""
        for key, body in list(self._jobs.items()):
            if _id(key.kind, body) == one:
                self.see_job(key, body, deleted=True)
                return key
        for children in list(self._children.values()):
            for (kind, _), body in list(children.items()):
                if _id(kind, body) == one:
                    return self.see_child(kind, body, deleted=True)
        for workloads in list(self._workloads.values()):
            for body in list(workloads.values()):
                if _id("Workload", body) == one:
                    return self.see_child("Workload", body, deleted=True)
        return None

    def _namesake(self, group: tuple[str, str, str]) -> Key | None:
        """The job that waits for a stranger's child of the same name to go."""
        kind, namespace, name = group
        if kind not in ("GenerationJob", "TrainingJob"):
            return None
        key = Key(kind, namespace, name)  # type: ignore[arg-type]
        return key if key in self._jobs else None
