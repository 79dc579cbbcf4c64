"""What the queue says (Kueue, by label on the child Job), mirrored into the job: "why is it pending" in one condition."""

from __future__ import annotations

from frazil_jobs.api import conditions as c
from frazil_operator.build.volumes import Job
from frazil_operator.reconcile.children import condition, suspended
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.plan import Object


def mirror(draft: Draft, job: Job, children: list[Object]) -> bool:
    """Set QuotaReserved; whether pods may start."""
    name = job.spec.scheduling.queue_name
    if name is None:
        draft.condition(c.QUOTA_RESERVED, "True", reason=c.NO_QUEUE, message="no queue is in use")
        return True
    workloads = draft.observed.of("workload")
    evicted = next((found for one in workloads if (found := condition(one, "Evicted"))), None)
    waiting = [child for child in children if suspended(child)]
    if children and not waiting:
        draft.condition(c.QUOTA_RESERVED, "True", reason=c.ADMITTED, message=f"admitted by the queue {name}")
        return True
    if evicted is not None:
        message = str(evicted.get("message") or f"the queue {name} took the quota back")
        draft.condition(c.QUOTA_RESERVED, "False", reason=c.PREEMPTED, message=message)
        return False
    pending = next((said for one in workloads if (said := _pending(one))), None)
    reason = c.TOPOLOGY_PLACEMENT_FAILED if pending and "topology" in pending.lower() else c.WAITING_FOR_QUOTA
    draft.condition(
        c.QUOTA_RESERVED, "False", reason=reason, message=pending or f"waiting to be admitted by the queue {name}"
    )
    return False


def _pending(workload: Object) -> str | None:
    """Kueue's own words on a workload that waits."""
    for one in (workload.get("status") or {}).get("conditions") or ():
        if one.get("type") == "QuotaReserved" and one.get("status") == "False":
            return str(one.get("message") or "")
    return None
