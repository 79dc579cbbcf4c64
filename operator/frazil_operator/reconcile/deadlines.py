"""Deadlines and the time to live: counted on the job, so that nothing depends on its children."""

from __future__ import annotations

from datetime import timedelta

from frazil_jobs.api import conditions as c
from frazil_operator.build.volumes import Job
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.times import time_of


def enforce(draft: Draft, job: Job) -> bool:
    """Fail the job when a deadline has passed; whether it has. Otherwise look again when one will."""
    started = time_of(draft.fields.get("startTime"))
    if started is None:
        return False
    limits = [(job.spec.active_deadline_seconds, c.DEADLINE_EXCEEDED, "activeDeadlineSeconds")]
    if not draft.is_true(c.PODS_READY):
        limits.append(
            (job.spec.pre_running_deadline_seconds, c.PRE_RUNNING_DEADLINE_EXCEEDED, "preRunningDeadlineSeconds")
        )
    for seconds, reason, field in limits:
        if seconds is None:
            continue
        left = (started + timedelta(seconds=seconds) - draft.now).total_seconds()
        if left <= 0:
            draft.fail(reason, f"spec.{field}: {seconds} s have passed since the start{_why(draft, reason)}")
            return True
        draft.again(left)
    return False


def _why(draft: Draft, reason: str) -> str:
    found = c.find(draft.conditions, c.PODS_READY)
    if reason != c.PRE_RUNNING_DEADLINE_EXCEEDED or found is None or not found.message:
        return ""
    return f", and {found.message}"


def over(draft: Draft, job: Job) -> bool:
    """Whether a finished job's time to live is over. Otherwise look again when it will be."""
    seconds, finished = job.spec.ttl_seconds_after_finished, time_of(draft.fields.get("completionTime"))
    if seconds is None or finished is None:
        return False
    left = (finished + timedelta(seconds=seconds) - draft.now).total_seconds()
    if left > 0:
        draft.again(left)
    return left <= 0
