"""How the pods are: ready, waiting, stuck, or on a node that no longer answers."""

from __future__ import annotations

import re
from typing import Final

from frazil_jobs.api import conditions as c
from frazil_operator.reconcile.children import Trouble, deleted, overdue_in, pod_ended, trouble
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.times import text_of
from frazil_operator.settings import Settings

_NEXT_LOOK_SECONDS: Final = 1.0
_HELD_SECONDS: Final = 15.0
"""A deleted pod that has ended and is still there so long after it was due is held by somebody."""
NODE_LOST: Final = "NodeLost"
_WORDS: Final = {
    c.UNSCHEDULABLE: "a pod can't be placed",
    c.IMAGE_PULL: "an image can't be pulled",
    c.CONTAINER_NOT_MADE: "a pod can't start",
}
_OWN_SECRET: Final = re.compile(r'secret "frazil-\S+" not found')


def tell_readiness(draft: Draft, *, ready: int, wanted: int) -> None:
    """Set PodsReady. Once True it stays so for the attempt: what happens to pods later has conditions of its own."""
    if draft.is_true(c.PODS_READY):
        return
    if wanted and ready >= wanted:
        draft.condition(c.PODS_READY, "True", reason=c.ALL_READY, message=f"{ready} of {wanted} pods are ready")
        return
    found, message = first_trouble(draft), f"{ready} of {wanted} pods are ready"
    if found is not None:
        message += f"; {_WORDS[found.reason]}: {found.message}"
        if _OWN_SECRET.search(found.message):
            message += "; the chart gives it to the namespaces of its value `tenants`: is this one there?"
    draft.condition(c.PODS_READY, "False", reason=found.reason if found else c.WAITING_FOR_PODS, message=message)


def first_trouble(draft: Draft) -> Trouble | None:
    """What keeps a pod of this job from starting."""
    pods = sorted(draft.observed.of("pod"), key=lambda pod: str(pod["metadata"]["name"]))
    return next((found for pod in pods if not deleted(pod) and (found := trouble(pod)) is not None), None)


def release_lost(draft: Draft, settings: Settings) -> None:
    """Give up pods whose node no longer answers and which should have ended long ago: their Job would wait for ever.

    As Kubernetes' own pod collector does it: first the pod's status says that it has failed, by a disruption (the Job
    controller then counts it, for nothing, and makes another), then the pod is deleted by force. A zombie can do no harm:
    outputs have deterministic keys and bytes, and attempts are fenced by their names.
    """
    for pod in draft.observed.of("pod"):
        status = pod.get("status") or {}
        left = None if pod_ended(pod) else overdue_in(pod, draft.now, after=settings.node_lost_seconds)
        if left is not None and left <= 0:
            node, name = (pod.get("spec") or {}).get("nodeName", "its node"), pod["metadata"]["name"]
            message = f"{node} does not answer: {name} was given up"
            disrupted = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": NODE_LOST,
                "message": message,
                "lastTransitionTime": text_of(draft.now),
            }
            others = [one for one in status.get("conditions") or () if one.get("type") != "DisruptionTarget"]
            given_up = {"phase": "Failed", "reason": NODE_LOST, "message": message, "conditions": [*others, disrupted]}
            draft.patch(pod, {"status": given_up}, status=True)
            draft.event("Warning", c.DISRUPTED, message)
        elif status.get("reason") == NODE_LOST and deleted(pod) and pod["metadata"].get("deletionGracePeriodSeconds"):
            draft.delete(pod, grace_seconds=0)
        elif left is not None:
            draft.again(left + _NEXT_LOOK_SECONDS)


def leave_with_namespace(draft: Draft) -> bool:
    """Whether the namespace is being deleted; its Jobs are then deleted here.

    Kubernetes takes the pods of a namespace first, and the Job controller keeps one of a Job that tries each index again
    (backoffLimitPerIndex) until another is there in its place. None can be made any more, so both would wait for ever.
    """
    if draft.observed.namespace_ends:
        for job in draft.observed.of("job"):
            if not deleted(job):
                draft.delete(job)
        return True
    ended = filter(pod_ended, draft.observed.of("pod"))
    left = [left for pod in ended if (left := overdue_in(pod, draft.now, after=_HELD_SECONDS)) is not None]
    draft.look_at_namespace = draft.any_over(left, pause=_HELD_SECONDS)
    return False


def living(draft: Draft) -> int:
    """Pods that have not ended."""
    return sum(1 for pod in draft.observed.of("pod") if not pod_ended(pod))
