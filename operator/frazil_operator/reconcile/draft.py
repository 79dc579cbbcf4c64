"""The status in the making: one pass of reconcile collects here what to write, and nothing is written twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from frazil_jobs.api import conditions as c
from frazil_jobs.api.phase import phase_of
from frazil_jobs.api.status import Condition, ConditionStatus
from frazil_operator.reconcile.plan import Ask, Deletion, Event, Object, Observed, Patch, Plan
from frazil_operator.reconcile.times import text_of, time_of

_COUNTS: Final = frozenset({"progress", "workers", "jobs", "shards"})
_QUIET: Final = frozenset(
    {
        (c.PROMPTS_INSPECTED, c.INSPECTING),
        (c.OUTPUTS_STORED, c.UPLOADING),
        (c.CHECKPOINT_STORED, c.UPLOADING),
        (c.QUOTA_RESERVED, c.NO_QUEUE),
        (c.GANG_SCHEDULED, c.NOT_REQUIRED),
    }
)
"""Transitions that no Event tells of: they would come with every job and say nothing."""
_WARNINGS: Final = frozenset(
    {
        c.WORKER_SILENT,
        c.INVALID_PROMPTS,
        c.PROMPTS_UNREACHABLE,
        c.PROMPTS_CHANGED,
        c.PREEMPTED,
        c.UNSCHEDULABLE,
        c.PROVIDER_UNAVAILABLE,
        c.IMAGE_PULL,
        c.CONTAINER_NOT_MADE,
        c.REFUSED,
        c.WORKER_FAILED,
        c.DISRUPTED,
        c.UPLOAD_FAILED,
        c.REMOVAL_FAILED,
        *c.REASONS[c.FAILED],
    }
)


@dataclass
class Draft:
    """A status and a plan that grow during one pass."""

    observed: Observed
    now: datetime
    conditions: list[Condition]
    fields: dict[str, Any]
    """The rest of the status, camelCase, as it will be written."""
    applies: list[Object] = field(default_factory=list)
    ensures: list[Object] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    deletions: list[Deletion] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    read_config_map: tuple[str, str] | None = None
    look_at_namespace: bool = False
    finalizers: tuple[str, ...] | None = None
    least_seconds: float = 0.0
    """Between two writes that only count pods and outputs."""
    silent: bool = False
    """Nothing is worth a write of the status yet."""
    _again: float | None = None

    @classmethod
    def of(cls, observed: Observed, now: datetime, *, least_seconds: float = 0.0) -> Draft:
        """Begin from the status as it is."""
        status = dict(observed.job.get("status") or {})
        conditions = [Condition.model_validate(one) for one in status.pop("conditions", [])]
        return cls(observed=observed, now=now, conditions=conditions, fields=status, least_seconds=least_seconds)

    @property
    def generation(self) -> int | None:
        """Of the spec that is acted on."""
        found = self.observed.job["metadata"].get("generation")
        return int(found) if found is not None else None

    def condition(self, kind: str, status: ConditionStatus, *, reason: str, message: str = "") -> None:
        """Set a condition; an Event tells of it when its status or reason is new."""
        before = c.find(self.conditions, kind)
        self.conditions = c.set_condition(
            self.conditions,
            kind,
            status,
            reason=reason,
            message=message[:1024],
            generation=self.generation,
            now=text_of(self.now),
        )
        changed = before is None or (before.status, before.reason) != (status, reason)
        if changed and (kind, reason) not in _QUIET:
            self.event("Warning" if reason in _WARNINGS else "Normal", reason, message or f"{kind} is {status}")

    def event(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tell it to who asks `kubectl describe`."""
        self.events.append(Event(kind, reason, message[:1024]))

    def fail(self, reason: str, message: str) -> None:
        """The job has failed, for good."""
        self.condition(c.FAILED, "True", reason=reason, message=message)
        self.fields["completionTime"] = text_of(self.now)

    def complete(self, reason: str, message: str) -> None:
        """The job is done, for good."""
        self.condition(c.COMPLETE, "True", reason=reason, message=message)
        self.fields["completionTime"] = text_of(self.now)

    def is_true(self, kind: str) -> bool:
        """Whether a condition is True."""
        return c.is_true(self.conditions, kind)

    def reason_of(self, kind: str) -> str | None:
        """The reason of a condition, if it's there."""
        found = c.find(self.conditions, kind)
        return found.reason if found else None

    def since(self, kind: str) -> datetime | None:
        """When a condition last changed its status."""
        found = c.find(self.conditions, kind)
        return time_of(found.last_transition_time) if found else None

    @property
    def finished(self) -> bool:
        """Whether the job is Complete or Failed."""
        return c.finished(self.conditions)

    def again(self, seconds: float) -> None:
        """Look again after so many seconds, or earlier."""
        at_least = max(seconds, 0.1)
        self._again = at_least if self._again is None else min(self._again, at_least)

    def any_over(self, left: Sequence[float], *, pause: float) -> bool:
        """Whether one of several waits, of which so many seconds are left, is over. Looks again when the next one is, and
        `pause` seconds after one that is."""
        if left:
            self.again(min(seconds if seconds > 0 else pause for seconds in left))
        return any(seconds <= 0 for seconds in left)

    def patch(self, child: Object, body: Mapping[str, Any], *, status: bool = False) -> None:
        """Change some fields of a child as it was seen; with `status`, of its status."""
        meta = child["metadata"]
        self.patches.append(
            Patch(
                api_version=child["apiVersion"],
                kind=child["kind"],
                namespace=meta["namespace"],
                name=meta["name"],
                resource_version=str(meta.get("resourceVersion", "")),
                body=body,
                status=status,
            )
        )

    def delete(self, child: Object, *, grace_seconds: int | None = None) -> None:
        """Delete a child as it was seen."""
        meta = child["metadata"]
        self.deletions.append(
            Deletion(
                api_version=child["apiVersion"],
                kind=child["kind"],
                namespace=meta["namespace"],
                name=meta["name"],
                uid=meta["uid"],
                grace_seconds=grace_seconds,
            )
        )

    def _worth_writing(self, status: dict[str, Any]) -> dict[str, Any] | None:
        """The status, if it's worth a write. One that only counts anew while the last count is fresh is written later."""
        if self.silent:
            return None
        before = dict(self.observed.job.get("status") or {})
        counted = time_of((before.get("progress") or {}).get("lastUpdateTime"))
        if counted is None or status == before or _without_counts(status) != _without_counts(before):
            return status
        left = self.least_seconds - (self.now - counted).total_seconds()
        if left <= 0:
            return status
        self.again(left)
        return None

    def _waits_for(self) -> str:
        """What keeps the pods from being placed, in the words of queue or scheduler."""
        found = (c.find(self.conditions, kind) for kind in (c.QUOTA_RESERVED, c.GANG_SCHEDULED))
        return next((one.message for one in found if one is not None and one.status == "False"), "")

    def plan(self, *, suspend: bool = False, delete_job: bool = False) -> Plan:
        """What was collected."""
        status = {
            **self.fields,
            "observedGeneration": self.generation,
            "phase": phase_of(self.conditions, suspend=suspend),
            "conditions": [condition.document() for condition in self.conditions],
        }
        if "scheduling" in status:
            status["scheduling"] = {**status["scheduling"], "message": self._waits_for()}
        written = self._worth_writing({name: value for name, value in status.items() if value is not None})
        return Plan(
            apply=tuple(self.applies),
            ensure=tuple(self.ensures),
            patch=tuple(self.patches),
            delete=tuple(self.deletions),
            status=written,
            finalizers=self.finalizers,
            events=tuple(self.events),
            asks=tuple(self.asks),
            read_config_map=self.read_config_map,
            look_at_namespace=self.look_at_namespace,
            requeue_after=self._again,
            delete_job=delete_job,
        )


def _without_counts(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in _COUNTS}
