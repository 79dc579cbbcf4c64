"""What kopf watches, and what is noted of each event: the state, and which job to look at.

Nothing is persisted on any object (no annotations, no finalizers of kopf's), and handlers do nothing but take notes. kopf's
own indices are not used: to fill them before anything is handled it wakes every object for every other one, which takes
minutes of an operator that starts among ten thousand jobs. `Watchdog.caught_up` says when all is known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import kopf

from frazil_jobs.api.base import GROUP, VERSION
from frazil_operator.build.labels import watched_label
from frazil_operator.engine.queue import WorkQueue
from frazil_operator.engine.state import State
from frazil_operator.reconcile.plan import Key

KINDS: Final = {"generationjobs": "GenerationJob", "trainingjobs": "TrainingJob"}
_DROPPED: Final = ("managedFields",)
_SPEC_FIELDS: Final = {
    "Job": frozenset({"completions", "parallelism", "suspend", "backoffLimit", "backoffLimitPerIndex"}),
    "Pod": frozenset({"nodeName"}),
    "Workload": frozenset({"active"}),
}
"""Of ten thousand pods the specs would take a gigabyte."""
Heard = Callable[[str, str], None]


def register(
    registry: kopf.OperatorRegistry,
    *,
    state: State,
    queue: WorkQueue[Key],
    heard: Heard,
    gone: Callable[[str], None],
    podgroups: str | None,
    workloads: str | None,
) -> None:
    """Register all handlers. `podgroups` and `workloads` are the API versions to watch, where they are served.

    `heard` is called with the kind and namespace of each event, `gone` with the uid of a job that was deleted.
    """
    kopf.on.login(registry=registry, id="login")(login)
    for plural, kind in KINDS.items():
        _jobs(registry, plural, kind, state=state, queue=queue, heard=heard, gone=gone)
    _children(registry, "batch/v1", "jobs", "Job", state=state, queue=queue, heard=heard)
    _children(registry, "v1", "pods", "Pod", state=state, queue=queue, heard=heard)
    if podgroups is not None:
        _children(registry, podgroups, "podgroups", "PodGroup", state=state, queue=queue, heard=heard)
    if workloads is not None:
        _children(registry, workloads, "workloads", "Workload", state=state, queue=queue, heard=heard)


async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """The pod's service account, or the kubeconfig of a person."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def _jobs(
    registry: kopf.OperatorRegistry,
    plural: str,
    kind: str,
    *,
    state: State,
    queue: WorkQueue[Key],
    heard: Heard,
    gone: Callable[[str], None],
) -> None:
    def key_of(namespace: str | None, name: str | None) -> Key:
        return Key(kind, str(namespace), str(name))  # type: ignore[arg-type]

    async def job_changed(event: kopf.RawEvent, namespace: str | None, name: str | None, **_: Any) -> None:
        heard(kind, str(namespace))
        deleted = event["type"] == "DELETED"
        state.see_job(key_of(namespace, name), slim(event["object"]), deleted=deleted)
        if deleted:
            gone(str(event["object"]["metadata"]["uid"]))
        queue.add(key_of(namespace, name))

    kopf.on.event(GROUP, VERSION, plural, registry=registry, id=f"event-{plural}")(job_changed)


def _children(
    registry: kopf.OperatorRegistry,
    api_version: str,
    plural: str,
    kind: str,
    *,
    state: State,
    queue: WorkQueue[Key],
    heard: Heard,
) -> None:
    group, _, version = api_version.rpartition("/")
    label, value = watched_label(kind)
    labels = {label: value or kopf.PRESENT}

    async def child_changed(event: kopf.RawEvent, namespace: str | None, **_: Any) -> None:
        heard(kind, str(namespace))
        thing = {"apiVersion": api_version, "kind": kind, **slim(event["object"], spec=_SPEC_FIELDS.get(kind))}
        key = state.see_child(kind, thing, deleted=event["type"] == "DELETED")
        if key is not None:
            queue.add(key)

    kopf.on.event(group, version, plural, registry=registry, id=f"event-{plural}", labels=labels)(child_changed)


def slim(body: Any, *, spec: frozenset[str] | None = None) -> dict[str, Any]:
    """A plain copy without what nobody reads and everybody carries; with `spec`, only those fields of the spec."""
    found = dict(body)
    found["metadata"] = {
        name: value for name, value in dict(found.get("metadata") or {}).items() if name not in _DROPPED
    }
    if spec is not None:
        found["spec"] = {name: value for name, value in dict(found.get("spec") or {}).items() if name in spec}
    return found
