"""What reconcile sees and what it answers: plain data, so that every decision can be tested without a cluster.

Kubernetes objects are dictionaries as the API server has them. Nothing in here is remembered between two calls: what must
outlive the operator is in the job's status or on its children.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from frazil_jobs.outputs.progress import ShardProgress, TrainingProgress

JobKind = Literal["GenerationJob", "TrainingJob"]
Progress = ShardProgress | TrainingProgress
Object = Mapping[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True)
class Key:
    """One job of the cluster."""

    kind: JobKind
    namespace: str
    name: str


@dataclass(frozen=True)
class Inspection:
    """What the task `frazil.inspect` answered for this job: a pin of the prompts, or why there is none."""

    pin: Mapping[str, Any] | None = None
    """frazil_jobs.inputs.rows.PromptsPin as JSON: sha256, count, shards, per_shard, format, size."""
    error: str = ""
    """For people; empty when the prompts are good."""
    exit_code: int = 0
    """65 or 78: the prompts or the spec are wrong. 75: the store does not answer."""


@dataclass(frozen=True)
class Finalization:
    """What the task `frazil.finalize` answered: the results recounted from the store, and the manifest's key."""

    total: int = 0
    stored: int = 0
    bytes: int = 0
    manifest: str = ""
    """Key below the job's prefix."""
    gallery: str = ""
    note: str = ""
    """Of an approximate mode: how far from exact its outputs are, or why they are exact after all."""
    error: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Removal:
    """What the task `frazil.delete_outputs` answered."""

    error: str = ""


@dataclass(frozen=True)
class GangSupport:
    """The gang scheduling that the API server serves just now."""

    provider: Literal["native-v1beta1", "volcano", "coscheduling", "none"] = "none"


@dataclass(frozen=True)
class Observed:
    """Everything that is known of one job at one moment."""

    job: Object
    """The job, as the API server has it."""
    children: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    """Objects that carry this job's uid as label, by lower-case kind: job, pod, podgroup, workload (Kueue's). ConfigMaps
    and Services are not watched, the operator may not even list them: they are made before the child that needs them, and
    looked for where a pod of it does not begin (`Plan.ensure`)."""
    inspection: Inspection | None = None
    """None: not asked, or no answer yet."""
    inspect_asked_seconds: float | None = None
    """How long the question for the inspection is open. None: it is not."""
    finalization: Finalization | None = None
    removal: Removal | None = None
    progress: tuple[Progress, ...] | None = None
    """What Redis holds, by shard. None: unknown."""
    gang: GangSupport = GangSupport()
    config_map_text: str | None = None
    """The prompts' ConfigMap key, once `Plan.read_config_map` has asked for it."""
    strangers: tuple[str, ...] = ()
    """Names of batch/v1 Jobs of this job's name that belong to another uid and have not gone yet."""
    namespace_ends: bool = False
    """Whether its namespace is being deleted, once `Plan.look_at_namespace` has asked for it."""
    refused: str = ""
    """Why an object of the plan before could not be made: whose it is, or what the API server said."""

    def of(self, kind: str) -> tuple[Object, ...]:
        """The children of a kind."""
        return self.children.get(kind, ())


@dataclass(frozen=True)
class Deletion:
    """One object to delete, if it's still the one that was seen."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    propagation: Literal["Foreground", "Background"] = "Background"
    grace_seconds: int | None = None
    """0: at once, without waiting for its node."""


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event about the job. Posted once the status write that it tells of has succeeded."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Patch:
    """A merge patch of exactly the fields that Frazil changes on an object that is there. A 409 (somebody else wrote since)
    is tried again with what is seen then; nothing that a queue has put into the object is touched.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    resource_version: str
    """Of the object as it was seen; sent along as a precondition."""
    body: Mapping[str, Any]
    """Such as {"spec": {"parallelism": 4}}."""
    status: bool = False
    """Of the status subresource."""


AskName = Literal["inspect", "finalize", "delete_outputs"]


@dataclass(frozen=True)
class Ask:
    """A task for the chart's worker Deployment: asked once, and again after a time-out, until its answer is there.

    The same `key` is the same question: its answer stays with the engine, and a new key asks anew.
    """

    name: AskName
    key: str
    """`<uid>/<what makes the answer stale>`."""
    payload: Mapping[str, Any]
    """Keyword arguments of the task; JSON."""


@dataclass(frozen=True)
class Plan:
    """What to do now, and when to look again. The order: ask, delete, patch, ensure, apply, finalizers, status, events."""

    apply: tuple[Object, ...] = ()
    """For server-side apply, in order: children that are not there yet. Once made they are only patched, since a queue or
    the Job controller writes to them too."""
    ensure: tuple[Object, ...] = ()
    """Looked for, and applied as above where they are gone: what a child can't do without and nobody watches."""
    patch: tuple[Patch, ...] = ()
    delete: tuple[Deletion, ...] = ()
    status: Mapping[str, Any] | None = None
    """The whole new status; written only where it differs. None: leave it."""
    finalizers: tuple[str, ...] | None = None
    """Frazil's own finalizers as they should be. None: leave them."""
    events: tuple[Event, ...] = ()
    asks: tuple[Ask, ...] = ()
    read_config_map: tuple[str, str] | None = None
    """Name and key of a ConfigMap in the job's namespace whose text is wanted."""
    look_at_namespace: bool = False
    """It's wanted whether the job's namespace is being deleted."""
    requeue_after: float | None = None
    """Seconds. None: when something changes."""
    delete_job: bool = False
    """The job's own time to live is over: delete it; its children follow in the background."""
