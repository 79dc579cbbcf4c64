"""The one question: given all that is known of a job and the time, what should be done?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from frazil_jobs.api import conditions as c
from frazil_jobs.api.common import MANAGED_BY
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.problems import problems_of
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_operator.build.labels import Owner
from frazil_operator.build.volumes import Job
from frazil_operator.reconcile import deadlines, gangs
from frazil_operator.reconcile.admission import refusal
from frazil_operator.reconcile.common import tell_last
from frazil_operator.reconcile.deletion import finalizers_differ, take_leave, wanted_finalizers
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.generation import reconcile_generation
from frazil_operator.reconcile.plan import Observed, Plan
from frazil_operator.reconcile.pods import leave_with_namespace, release_lost
from frazil_operator.reconcile.stopping import hold
from frazil_operator.reconcile.training import reconcile_training
from frazil_operator.settings import Settings

_KINDS: Mapping[str, type[GenerationJob] | type[TrainingJob]] = {
    "GenerationJob": GenerationJob,
    "TrainingJob": TrainingJob,
}
_MOST_PROBLEMS = 3


def reconcile(observed: Observed, now: datetime, settings: Settings) -> Plan:
    """Decide. Pure: the same arguments give the same plan, and a plan that was carried out gives an empty one."""
    body = observed.job
    owner = Owner.of(body)
    draft = Draft.of(observed, now, least_seconds=settings.progress_seconds)
    job, problem = read_job(body)
    if body["metadata"].get("deletionTimestamp"):
        return take_leave(draft, observed, job, owner, settings)
    if (body["spec"].get("managedBy") or MANAGED_BY) != MANAGED_BY:
        return Plan()
    if draft.finished:
        return _finished(draft, job, settings)
    if job is None:
        draft.fail(c.BAD_CONFIGURATION, problem)
        return draft.plan()
    wanted = wanted_finalizers(job)
    if finalizers_differ(body, wanted):
        draft.finalizers = wanted
    if refused := refusal(job, settings):
        draft.fail(c.BAD_CONFIGURATION, refused)
        return draft.plan()
    if leave_with_namespace(draft):
        return draft.plan()
    if isinstance(job, GenerationJob):
        return reconcile_generation(draft, job, owner, settings)
    return reconcile_training(draft, job, owner, settings)


def read_job(body: Mapping[str, Any]) -> tuple[Job | None, str]:
    """The job as a type, or what is wrong with it. (The API server has checked it; this is for one that an older CRD let
    through.)"""
    document = {name: body[name] for name in ("apiVersion", "kind", "metadata", "spec") if name in body}
    kind = _KINDS[body["kind"]]
    try:
        return kind.model_validate(document), ""
    except ValidationError as error:
        return None, "; ".join(str(problem) for problem in problems_of(kind, document, error)[:_MOST_PROBLEMS])


def _finished(draft: Draft, job: Job | None, settings: Settings) -> Plan:
    """A finished job stays as it is: its children may vanish, be deleted or run on, and nothing is made again. Only how
    their last pods end is still counted."""
    if job is None:
        return Plan()
    children = [child for child in draft.observed.of("job") if not child["metadata"].get("deletionTimestamp")]
    hold(draft, job, children)
    gangs.sweep_groups(draft, [])
    release_lost(draft, settings)
    counted = tell_last(draft, job, children)
    over = deadlines.over(draft, job)
    plan = draft.plan()
    return Plan(
        patch=plan.patch,
        delete=plan.delete,
        status=plan.status if counted else None,
        requeue_after=plan.requeue_after,
        delete_job=over,
    )
