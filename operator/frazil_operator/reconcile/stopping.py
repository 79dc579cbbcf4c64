"""Holding children back and letting them go. A queue's own switch is used where a queue is in charge."""

from __future__ import annotations

from frazil_operator.build.volumes import Job
from frazil_operator.reconcile import children as kids
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.plan import Object


def hold(draft: Draft, job: Job, children: list[Object]) -> None:
    """No pod of these Jobs is wanted: their pods are told to end, what is done stays done."""
    _switch(draft, job, children, on=False)


def release(draft: Draft, job: Job, children: list[Object]) -> None:
    """Pods of these Jobs are wanted (again)."""
    _switch(draft, job, children, on=True)


def _switch(draft: Draft, job: Job, children: list[Object], *, on: bool) -> None:
    open_ = [child for child in children if not kids.complete(child) and kids.condition(child, "Failed") is None]
    if job.spec.scheduling.queue_name:
        # Kueue owns .spec.suspend of a Job in a queue, and would put it back. Its Workload has a switch of its own.
        uids = {child["metadata"]["uid"] for child in open_}
        for workload in draft.observed.of("workload"):
            owners = {owner.get("uid") for owner in workload["metadata"].get("ownerReferences") or ()}
            if owners & uids and bool(workload["spec"].get("active", True)) != on:
                draft.patch(workload, {"spec": {"active": on}})
        return
    for child in open_:
        if kids.suspended(child) == on:
            draft.patch(child, {"spec": {"suspend": not on}})
