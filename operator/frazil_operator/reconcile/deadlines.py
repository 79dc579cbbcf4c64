"""Deadlines and the time to live: counted on the job, so that nothing depends on its children."""

from __future__ import annotations

from datetime import datetime, timedelta

from frazil_jobs.api import conditions as c
from frazil_operator.build.volumes import Job
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.times import time_of


def enforce(draft: Draft, job: Job) -> bool:
    """Fail the job when a deadline has passed; whether it has. Otherwise look again when one will."""
    started = time_of(draft.fields.get("startTime"))
    if started is None:
        return False
    limits = [(started, job.spec.active_deadline_seconds, c.DEADLINE_EXCEEDED, "activeDeadlineSeconds")]
    if (wanted := _wanted_since(draft, started)) is not None:
        limits.append(
            (
                wanted,
                job.spec.pre_running_deadline_seconds,
                c.PRE_RUNNING_DEADLINE_EXCEEDED,
                "preRunningDeadlineSeconds",
            )
        )
    for since, seconds, reason, field in limits:
        if seconds is None:
            continue
        left = (since + timedelta(seconds=seconds) - draft.now).total_seconds()
        if left <= 0:
            draft.fail(reason, f"spec.{field}: {seconds} s have passed since the start{_why(draft, reason)}")
            return True
        draft.again(left)
    return False


def _wanted_since(draft: Draft, started: datetime) -> datetime | None:
    """Since when pods are wanted of which none is ready; None where one replica is, or was, or a queue holds them back.

    An attempt that replaces another, and pods that a queue has let go again, have the whole time.
    """
    workers, shards = draft.fields.get("workers") or {}, draft.fields.get("shards") or {}
    begun = draft.is_true(c.PODS_READY) or workers.get("ready") or shards.get("completedCount")
    if begun or not draft.is_true(c.QUOTA_RESERVED):
        return None
    return max(found for found in (started, draft.since(c.PODS_READY), draft.since(c.QUOTA_RESERVED)) if found)


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
