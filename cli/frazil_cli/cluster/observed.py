"""What `doctor` looks at, gathered before anything is judged: plain objects, or why they can't be seen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from frazil_cli.cluster.client import Object
from frazil_cli.cluster.snapshot import concerns
from frazil_cli.cluster.trial import Trial
from frazil_operator.settings import Settings

RECENT_SECONDS: Final = 900.0
"""Events older than this may be of a trouble that is over: those who try again do so within some minutes."""
State = Literal["ok", "wrong", "unknown"]
_CHILD: Final = re.compile(r".-a\d+(-|$)")
"""In the names of what the operator makes for a job."""


@dataclass(frozen=True)
class Unknown:
    """Something that can't be seen."""

    why: str


Objects = tuple[Object, ...] | Unknown


@dataclass(frozen=True)
class Probe:
    """Whether a service answered when it was asked with this namespace's own credentials."""

    ok: bool
    message: str = ""
    denied: bool = False
    """It answered, and refused them."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything that the checks know. Names are as in the API."""

    now: datetime
    namespace: str
    served: frozenset[str] = frozenset()
    """Kinds of frazil.dev."""
    definitions: Objects = ()
    """CustomResourceDefinitions of Frazil."""
    system: str | Unknown | None = None
    """The namespace of the installation; None: there is none to see."""
    settings: Settings | None = None
    settings_problem: str = ""
    deployments: Objects = ()
    """Of the installation."""
    lease: Object | Unknown | None = None
    system_pods: Objects = ()
    nodes: Objects = ()
    namespace_object: Object | Unknown | None = None
    quotas: Objects = ()
    jobs: tuple[Object, ...] = ()
    """Frazil's jobs of the namespace, finished or not."""
    pods: Objects = ()
    """Pods of jobs of the namespace."""
    events: Objects = ()
    """Of the namespace."""
    secrets: Mapping[str, frozenset[str] | None] | Unknown = field(default_factory=dict)
    """The Secrets that jobs need: keys that are there and not empty; None for a Secret that isn't there."""
    gang_provider: str = "none"
    kueue: bool = False
    trial: Trial | Unknown = Unknown("not tried")
    """A dry run of such a pod as a job has."""
    stores: Mapping[str, Probe | Unknown] = field(default_factory=dict)
    """By destination."""
    broker: Probe | Unknown = Unknown("not asked")

    @property
    def at_work(self) -> list[Object]:
        """Jobs that aren't finished."""
        return [job for job in self.jobs if (job.get("status") or {}).get("phase") not in ("Complete", "Failed")]

    def recent(self, reason: str | None = None) -> list[Object]:
        """Warnings of late, but not of jobs that are gone; with `reason` those of it."""
        if isinstance(self.events, Unknown):
            return []
        return [
            event
            for event in self.events
            if event.get("type") == "Warning"
            and (reason is None or event.get("reason") == reason)
            and (self.now - time_of(event)).total_seconds() <= RECENT_SECONDS
            and not self._of_a_job_that_is_gone(event)
        ]

    def _of_a_job_that_is_gone(self, event: Object) -> bool:
        about = event.get("involvedObject") or {}
        ours = about.get("kind") in ("GenerationJob", "TrainingJob") or _CHILD.search(str(about.get("name", "")))
        return bool(ours) and not any(concerns(event, job) for job in self.jobs)


@dataclass(frozen=True)
class Finding:
    """What one check says."""

    check: str
    state: State
    message: str
    remedy: str = ""
    details: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "check": self.check,
            "state": self.state,
            "message": self.message,
            "remedy": self.remedy or None,
            "details": list(self.details),
        }


def time_of(event: Object) -> datetime:
    """When an Event happened last."""
    series = event.get("series") or {}
    text = (
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
    )
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def condition(thing: Object, kind: str) -> Mapping[str, Any]:
    """A condition of an object; empty when it has none of the type."""
    for one in (thing.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind:
            return dict(one)
    return {}


def name_of(thing: Object) -> str:
    """Its name."""
    return str(thing["metadata"]["name"])
