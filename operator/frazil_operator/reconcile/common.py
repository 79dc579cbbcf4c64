"""What both kinds of job go through: suspended or not, begun, placed together or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from frazil_jobs.api import conditions as c
from frazil_operator.build.children import companions
from frazil_operator.build.labels import Owner, attempt_of
from frazil_operator.build.volumes import Job
from frazil_operator.reconcile import children as kids
from frazil_operator.reconcile import deadlines
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.plan import Object
from frazil_operator.reconcile.stopping import hold, release
from frazil_operator.reconcile.times import text_of

_STRANGER_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 60.0
"""A pod that has been on its node for so long and has not begun may lack what it's to be given."""
_MOST_JOBS: Final = 16


def stay_stopped(draft: Draft, job: Job, children: list[Object]) -> bool:
    """Follow spec.suspend; whether the job is suspended. Once its pods have gone nothing more is done or looked at."""
    if job.spec.suspend:
        hold(draft, job, children)
        draft.condition(
            c.SUSPENDED, "True", reason=c.USER_REQUESTED, message="spec.suspend is true: no pods are wanted"
        )
        if draft.is_true(c.PODS_READY):
            draft.condition(c.PODS_READY, "False", reason=c.WAITING_FOR_PODS, message="the job is suspended")
        draft.fields.pop("startTime", None)
        tell_jobs(draft, children, keep=True)
        workers = dict(draft.fields.get("workers") or {})
        if workers:
            counts = {"active": sum(map(kids.active, children)), "ready": sum(map(kids.ready, children))}
            draft.fields["workers"] = {**workers, "desired": 0, **counts}
        return True
    if draft.is_true(c.SUSPENDED):
        draft.condition(c.SUSPENDED, "False", reason=c.RESUMED, message="spec.suspend is false again")
        release(draft, job, children)
    elif not job.spec.scheduling.queue_name:
        release(draft, job, children)  # held back by nobody: a crash between two writes, or a hand
    return False


def begin_work(draft: Draft, job: Job) -> None:
    """Note when the pods were first wanted: not while a queue holds them back."""
    if not draft.fields.get("startTime") and draft.is_true(c.QUOTA_RESERVED):
        draft.fields["startTime"] = text_of(draft.now)


def wait_for_strangers(draft: Draft) -> bool:
    """Whether children of an earlier job of the same name are still on their way out: their names are needed."""
    strangers = draft.observed.strangers
    if strangers:
        names = ", ".join(strangers[:3])
        message = f"waiting for {names} of an earlier job of the same name to go"
        draft.condition(c.PODS_READY, "False", reason=c.WAITING_FOR_PODS, message=message)
        draft.again(_STRANGER_SECONDS)
    return bool(strangers)


def stay_refused(draft: Draft, job: Job, children: list[Object]) -> bool:
    """Whether an object could not be made just now: the status says why, and deadlines go on."""
    words = draft.observed.refused
    if words:
        draft.condition(c.PODS_READY, "False", reason=c.REFUSED, message=words)
        if deadlines.enforce(draft, job):
            hold(draft, job, children)
    return bool(words)


def mend(draft: Draft, job: Job, owner: Owner, *, attempt: int, anew: bool = False) -> None:
    """Look for what the pods of a child are given, where others are made (`anew`) or one of them waits for something:
    somebody may have deleted it, and the pod would wait for ever. While pods run nothing is looked for: they have what they
    need."""
    idle = [since for pod in draft.observed.of("pod") if (since := kids.idle_since(pod)) is not None]
    left = [_IDLE_SECONDS - (draft.now - since).total_seconds() for since in idle]
    over = draft.any_over(left, pause=_IDLE_SECONDS)
    if anew or over:
        draft.ensures += companions(job, owner, attempt=attempt)


def gang_condition(draft: Draft, job: Job) -> None:
    """Say whether the pods of a replica are placed together, and by whom."""
    wanted = job.spec.scheduling.gang
    provider = draft.observed.gang.provider
    in_use = provider if job.spec.workers.nodes_per_replica > 1 and wanted != "None" else "none"
    draft.fields["scheduling"] = {"provider": in_use, "queue": job.spec.scheduling.queue_name}
    if job.spec.scheduling.queue_name is None:
        draft.fields["scheduling"].pop("queue")
    if job.spec.workers.nodes_per_replica == 1:
        draft.condition(c.GANG_SCHEDULED, "True", reason=c.NOT_REQUIRED, message="a replica is one pod")
    elif wanted == "None":
        draft.condition(c.GANG_SCHEDULED, "True", reason=c.NOT_REQUIRED, message="spec.scheduling.gang is None")
    elif provider == "none":
        message = "the API server serves no gang scheduling (scheduling.k8s.io PodGroup, Volcano, coscheduling): "
        message += "waiting for one" if wanted == "Required" else "the pods are placed one by one"
        draft.condition(c.GANG_SCHEDULED, "False", reason=c.PROVIDER_UNAVAILABLE, message=message)
    elif (refusal := _refusal(draft)) is not None:
        draft.condition(c.GANG_SCHEDULED, "False", reason=c.UNSCHEDULABLE, message=refusal)
    elif any((pod.get("spec") or {}).get("nodeName") for pod in draft.observed.of("pod")):
        draft.condition(c.GANG_SCHEDULED, "True", reason=c.SCHEDULED, message=f"placed together by {provider}")


def _refusal(draft: Draft) -> str | None:
    """What the scheduler says of a group that does not fit. What it said of a gang that is over counts no more."""
    over = {job["metadata"]["name"] for job in draft.observed.of("job") if kids.ended(job) or kids.deleted(job)}
    for group in draft.observed.of("podgroup"):
        said = {one["type"]: one for one in (group.get("status") or {}).get("conditions") or ()}
        if group["metadata"]["name"] not in over and (no := _says_no(said)) is not None:
            return str(no.get("message") or no.get("reason") or "the pods don't fit together now")
    return None


def _says_no(said: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The condition of a PodGroup that refuses it. Volcano leaves its `Unschedulable` beside a later `Scheduled`."""
    native = said.get("PodGroupInitiallyScheduled", {})
    if native.get("status") == "False":
        return native
    volcano, placed = said.get("Unschedulable", {}), said.get("Scheduled", {})
    if volcano.get("status") != "True":
        return None
    later = str(placed.get("lastTransitionTime", "")) >= str(volcano.get("lastTransitionTime", ""))
    return None if placed.get("status") == "True" and later else volcano


def tell_jobs(draft: Draft, children: Sequence[Object], *, keep: bool = False) -> None:
    """List the last children: of the gangs of shards, those that were begun last. `keep`: also those of before that are
    gone, whose names must not be used again."""
    names = {child["metadata"]["name"] for child in children}
    before = [told for told in draft.fields.get("jobs") or () if keep and told["name"] not in names]
    gone = [{**told, "active": 0} for told in before]
    draft.fields["jobs"] = [*gone, *map(_told, children)][-_MOST_JOBS:]


def tell_last(draft: Draft, job: Job, children: Sequence[Object]) -> bool:
    """Count how the last pods of a finished job end; whether that is new. Jobs that are all gone stay as they were told."""
    if not children:
        return False
    found = {child["metadata"]["name"]: child for child in children}
    before = {name: draft.fields[name] for name in ("jobs", "workers") if draft.fields.get(name)}
    after: dict[str, Any] = {}
    if "jobs" in before:
        after["jobs"] = [
            _told(found[told["name"]]) if told["name"] in found else {**told, "active": 0} for told in before["jobs"]
        ]
    if "workers" in before:
        nodes = job.spec.workers.nodes_per_replica
        alone = job.kind == "GenerationJob" and nodes == 1  # one Job has all replicas, each a pod; a gang is a Job
        after["workers"] = {
            **before["workers"],
            "active": sum(kids.active(child) if alone else kids.active(child) > 0 for child in children),
            "ready": sum(kids.ready(child) if alone else kids.ready(child) >= nodes for child in children),
        }
    draft.fields |= after
    return after != before


def _told(child: Object) -> dict[str, Any]:
    return {
        "name": child["metadata"]["name"],
        "attempt": attempt_of(child),
        "active": kids.active(child),
        "succeeded": kids.succeeded(child),
        "failed": kids.failures(child),
    }
