"""A job that is being deleted. With whenDeleted: Retain there is no finalizer, and it goes at once, operator or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from frazil_jobs.api import conditions as c
from frazil_jobs.api.naming import job_prefix
from frazil_operator.build.labels import OUTPUTS_FINALIZER, Owner
from frazil_operator.build.volumes import Job
from frazil_operator.reconcile.children import deleted
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.plan import Ask, Observed, Plan
from frazil_operator.reconcile.pods import living, release_lost
from frazil_operator.settings import Settings

_AGAIN_SECONDS: Final = 15.0


def wanted_finalizers(job: Job) -> tuple[str, ...]:
    """Frazil's own finalizers of a job that lives."""
    return (OUTPUTS_FINALIZER,) if job.spec.output.when_deleted == "Delete" else ()


def finalizers_differ(body: Mapping[str, Any], wanted: tuple[str, ...]) -> bool:
    """Whether the object has others of ours than it should."""
    ours = [one for one in body["metadata"].get("finalizers") or () if one == OUTPUTS_FINALIZER]
    return tuple(ours) != wanted


def take_leave(draft: Draft, observed: Observed, job: Job | None, owner: Owner, settings: Settings) -> Plan:
    """First the pods end, then what lies below the job's own prefix is removed, then the job may go."""
    if not finalizers_differ(observed.job, ()):
        return Plan()
    for child in observed.of("job"):
        if not deleted(child):
            draft.delete(child)
    release_lost(draft, settings)
    gone = observed.removal
    done = gone is not None and not gone.error
    if job is None or done:
        draft.finalizers = ()
    elif living(draft) == 0 and not observed.of("job"):  # a Job that is still there may start one more pod
        payload = {
            "namespace": owner.namespace,
            "destination": job.spec.output.destination,
            "prefix": job_prefix(job, owner.uid),
            "uid": owner.uid,
        }
        draft.asks.append(Ask("delete_outputs", f"{owner.uid}/delete", payload))
        draft.again(_AGAIN_SECONDS)
    failed = job is not None and gone is not None and gone.error
    if failed:
        words = f"the outputs can't be removed, and it's tried again: {failed}"
        remedy = f"to keep them and let the job go, take the finalizer {OUTPUTS_FINALIZER} off it"
        draft.condition(c.OUTPUTS_STORED, "False", reason=c.REMOVAL_FAILED, message=f"{words} ({remedy})")
    plan = draft.plan()
    return Plan(
        patch=plan.patch,
        delete=plan.delete,
        status=plan.status if failed else None,
        events=plan.events,
        finalizers=plan.finalizers,
        asks=plan.asks,
        requeue_after=plan.requeue_after,
    )
