"""What there is to say of a job of the cluster at one moment: a pure function of the object and its Events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from frazil_cli.cluster.client import Object
from frazil_jobs.api import conditions as c

SHOWN_EVENTS: Final = 5
_TROUBLE: Final = frozenset(
    {
        c.INVALID_PROMPTS,
        c.WORKER_SILENT,
        c.PROMPTS_UNREACHABLE,
        c.PROMPTS_CHANGED,
        c.TOPOLOGY_PLACEMENT_FAILED,
        c.PREEMPTED,
        c.UNSCHEDULABLE,
        c.PROVIDER_UNAVAILABLE,
        c.IMAGE_PULL,
        c.CONTAINER_NOT_MADE,
        c.REFUSED,
        c.WORKER_FAILED,
        c.DISRUPTED,
        c.UPLOAD_FAILED,
    }
)
"""Reasons that a person may have to act on; the others of a condition that isn't met yet are the normal way."""
_WHEN_TRUE: Final = frozenset({c.SUSPENDED, c.RESTARTING, c.FAILED})
"""Types whose True is worth words; of all others it's the False."""
_SILENT: Final = frozenset({c.COMPLETE, c.OUTPUTS_STORED, c.CHECKPOINT_STORED})
"""Types whose False says nothing while a job works, unless its reason is a trouble."""


@dataclass(frozen=True)
class Note:
    """One condition that isn't as it will be in the end."""

    condition: str
    reason: str
    message: str
    trouble: bool
    """Whether something is wrong; else it's only waited for."""


@dataclass(frozen=True)
class Happening:
    """One Event."""

    at: str
    kind: str
    """Normal or Warning."""
    reason: str
    message: str
    about: str
    """kind/name of what it's about."""
    count: int = 1


@dataclass(frozen=True)
class Snapshot:
    """One job. Counts are outputs, or optimizer steps of a TrainingJob."""

    kind: str
    name: str
    namespace: str
    uid: str
    phase: str
    total: int = 0
    done: int = 0
    """Stored outputs, or steps."""
    made: int = 0
    """Outputs that are made, stored or not."""
    per_second: float | None = None
    seconds_left: float | None = None
    shards: int = 0
    shards_done: int = 0
    shards_failed: str = ""
    """As ranges."""
    ready: int = 0
    desired: int = 0
    attempt: int = 0
    restarts: int = 0
    loss: str | None = None
    results: str = ""
    gallery: str | None = None
    notes: tuple[Note, ...] = ()
    events: tuple[Happening, ...] = ()
    ended: str | None = None
    """The reason of Complete or Failed, and its message."""

    @property
    def finished(self) -> bool:
        """Whether nothing but its deletion follows."""
        return self.phase in ("Complete", "Failed")


def snapshot(job: Object, events: Iterable[Object] = ()) -> Snapshot:
    """A job as it is; `events` may be those of the whole namespace."""
    meta, status = job["metadata"], job.get("status") or {}
    progress, shards, workers = (_part(status, name) for name in ("progress", "shards", "workers"))
    outputs = _part(status, "outputs")
    training = job["kind"] == "TrainingJob"
    return Snapshot(
        kind=str(job["kind"]),
        name=str(meta["name"]),
        namespace=str(meta["namespace"]),
        uid=str(meta["uid"]),
        phase=str(status.get("phase") or "New"),
        total=int(progress.get("totalSteps" if training else "total") or 0),
        done=int(progress.get("step" if training else "stored") or 0),
        made=int(progress.get("step" if training else "generated") or 0),
        per_second=_number(progress.get("throughput" if training else "imagesPerSecond")),
        seconds_left=_number(progress.get("estimatedRemainingSeconds")),
        shards=int(shards.get("total") or 0),
        shards_done=int(shards.get("completedCount") or 0),
        shards_failed=str(shards.get("failed") or ""),
        ready=int(workers.get("ready") or 0),
        desired=int(workers.get("desired") or 0),
        attempt=int(status.get("attempt") or 0),
        restarts=int(status.get("restarts") or 0),
        loss=progress.get("loss"),
        results=str(outputs.get("uri") or ""),
        gallery=outputs.get("gallery"),
        notes=tuple(_notes(status.get("conditions") or ())),
        events=tuple(_recent(job, events)),
        ended=_ended(status.get("conditions") or ()),
    )


def as_line(seen: Snapshot) -> dict[str, Any]:
    """The object of one line of --json."""
    training = seen.kind == "TrainingJob"
    counts: dict[str, Any] = {"total": seen.total, "generated": seen.made, "stored": seen.done}
    return {
        "kind": seen.kind,
        "name": seen.name,
        "namespace": seen.namespace,
        "phase": seen.phase,
        **({"totalSteps": seen.total, "step": seen.done, "loss": seen.loss} if training else counts),
        "perSecond": seen.per_second,
        "secondsLeft": seen.seconds_left,
        "shards": {"total": seen.shards, "completed": seen.shards_done, "failed": seen.shards_failed},
        "workers": {"ready": seen.ready, "desired": seen.desired},
        "attempt": seen.attempt,
        "restarts": seen.restarts,
        "results": seen.results,
        "ended": seen.ended,
        "notes": [
            {"condition": one.condition, "reason": one.reason, "message": one.message, "trouble": one.trouble}
            for one in seen.notes
        ],
        "events": [
            {"at": one.at, "type": one.kind, "reason": one.reason, "message": one.message, "about": one.about}
            for one in seen.events
        ],
    }


def concerns(event: Object, job: Object) -> bool:
    """Whether an Event is about a job, one of its children or one of their pods.

    Names of children are those of the contract, `<job>-a<attempt>…`; an Event of an earlier job of the same name is older
    than this one.
    """
    about = event.get("involvedObject") or {}
    name, meta = str(about.get("name") or ""), job["metadata"]
    if about.get("kind") == job["kind"] and name == meta["name"]:
        return about.get("uid") in (None, meta["uid"])
    own = f"{meta['name']}-a"
    if not (name.startswith(own) and re.fullmatch(r"\d+(-.+)?", name.removeprefix(own))):
        return False
    return _time(_when(event)) >= _time(str(meta.get("creationTimestamp") or ""))


def _recent(job: Object, events: Iterable[Object]) -> list[Happening]:
    """The newest, oldest of them first; one that repeats itself once."""
    found: dict[tuple[str, str], Happening] = {}
    ours = (one for one in events if concerns(one, job) and not _routine(one))
    for event in sorted(ours, key=lambda one: _time(_when(one))):
        about = event.get("involvedObject") or {}
        reason, message = str(event.get("reason") or ""), str(event.get("message") or "").strip()
        key = (reason, _without_numbers(message))
        before = found.pop(key, None)
        count = int((event.get("series") or {}).get("count") or event.get("count") or 1)
        found[key] = Happening(
            at=_when(event),
            kind=str(event.get("type") or "Normal"),
            reason=reason,
            message=message,
            about=f"{about.get('kind')}/{about.get('name')}",
            count=count + (before.count if before else 0),
        )
    return list(found.values())[-SHOWN_EVENTS:]


def _routine(event: Object) -> bool:
    """Pods pulled, started and killed as they should be: too many to be news."""
    return event.get("type") != "Warning" and (event.get("involvedObject") or {}).get("kind") == "Pod"


def _notes(conditions: Sequence[Mapping[str, Any]]) -> Iterable[Note]:
    suspended = any(one.get("type") == c.SUSPENDED and one.get("status") == "True" for one in conditions)
    for condition in conditions:
        kind, reason = str(condition.get("type")), str(condition.get("reason") or "")
        if suspended and kind == c.PODS_READY:  # no pods are wanted
            continue
        trouble = reason in _TROUBLE or (kind == c.FAILED and condition.get("status") == "True")
        if (condition.get("status") == "True") != (kind in _WHEN_TRUE):
            continue
        if trouble or (kind not in _SILENT and kind not in _WHEN_TRUE) or kind == c.SUSPENDED:
            yield Note(kind, reason, str(condition.get("message") or ""), trouble)
        elif reason == c.FINALIZING:
            yield Note(kind, reason, str(condition.get("message") or ""), trouble=False)


def _ended(conditions: Iterable[Mapping[str, Any]]) -> str | None:
    for condition in conditions:
        if condition.get("type") in c.TERMINAL and condition.get("status") == "True":
            return f"{condition.get('reason')}: {condition.get('message') or ''}".rstrip(": ")
    return None


def _part(status: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = status.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _when(event: Object) -> str:
    series = event.get("series") or {}
    meta = event.get("metadata") or {}
    return str(
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or meta.get("creationTimestamp")
        or ""
    )


def _time(text: str) -> float:
    """Seconds since 1970, down to whole ones (creation times have no more); 0 for none."""
    try:
        return float(int(datetime.fromisoformat(text).timestamp()))
    except ValueError:
        return 0.0


def _without_numbers(message: str) -> str:
    return re.sub(r"\d+", "", message)
