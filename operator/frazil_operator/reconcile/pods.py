"""How the pods are: ready, waiting, stuck, or on a node that no longer answers."""

from __future__ import annotations

from frazil_jobs.api import conditions as c
from frazil_operator.reconcile.children import Trouble, deleted, lost, lost_in, pod_ended, trouble
from frazil_operator.reconcile.draft import Draft
from frazil_operator.settings import Settings

_NEXT_LOOK_SECONDS = 1.0


def tell_readiness(draft: Draft, *, ready: int, wanted: int) -> None:
    """Set PodsReady. Once True it stays so for the attempt: what happens to pods later has conditions of its own."""
    if draft.is_true(c.PODS_READY):
        return
    if wanted and ready >= wanted:
        draft.condition(c.PODS_READY, "True", reason=c.ALL_READY, message=f"{ready} of {wanted} pods are ready")
        return
    found = first_trouble(draft)
    if found is None:
        draft.condition(c.PODS_READY, "False", reason=c.WAITING_FOR_PODS, message=f"{ready} of {wanted} pods are ready")
    elif found.kind == "Image":
        message = f"an image can't be pulled: {found.message}"
        draft.condition(c.PODS_READY, "False", reason=c.IMAGE_PULL, message=message)
    else:
        words = "a pod can't be placed" if found.kind == "Unschedulable" else "a pod can't start"
        message = f"{ready} of {wanted} pods are ready; {words}: {found.message}"
        draft.condition(c.PODS_READY, "False", reason=c.WAITING_FOR_PODS, message=message)


def first_trouble(draft: Draft) -> Trouble | None:
    """What keeps a pod of this job from starting."""
    pods = sorted(draft.observed.of("pod"), key=lambda pod: str(pod["metadata"]["name"]))
    return next((found for pod in pods if not deleted(pod) and (found := trouble(pod)) is not None), None)


def release_lost(draft: Draft, settings: Settings) -> None:
    """Delete by force what a node that no longer answers should have ended long ago: its Job would wait for ever.

    A zombie can do no harm: outputs have deterministic keys and bytes, and attempts are fenced by their names.
    """
    for pod in draft.observed.of("pod"):
        if lost(pod, draft.now, after=settings.node_lost_seconds):
            draft.delete(pod, grace_seconds=0)
            node = (pod.get("spec") or {}).get("nodeName", "its node")
            name = pod["metadata"]["name"]
            draft.event("Warning", c.DISRUPTED, f"{node} does not answer: {name} was deleted by force")
        elif (wait := lost_in(pod, draft.now, after=settings.node_lost_seconds)) is not None:
            draft.again(wait + _NEXT_LOOK_SECONDS)


def living(draft: Draft) -> int:
    """Pods that have not ended."""
    return sum(1 for pod in draft.observed.of("pod") if not pod_ended(pod))
