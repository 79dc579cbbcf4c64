"""Whether pods that must start together can be placed together."""

from __future__ import annotations

from typing import Final

from frazil_cli.cluster.observed import Finding, Observed, condition, name_of
from frazil_operator.gang.placement import NONE

NAME: Final = "gangs"


def check(observed: Observed) -> Finding:
    """Gang API missing."""
    gangs = [job for job in observed.at_work if int((job["spec"].get("workers") or {}).get("nodesPerReplica") or 1) > 1]
    by_wish = {name_of(job): str((job["spec"].get("scheduling") or {}).get("gang") or "Auto") for job in gangs}
    required = [name for name, wish in by_wish.items() if wish == "Required"]
    wished = [name for name, wish in by_wish.items() if wish == "Auto"]
    provider = observed.gang_provider
    if provider == NONE and required:
        return Finding(
            NAME,
            "wrong",
            f"{', '.join(required)} must be placed together, and the API server serves no gang scheduling: it waits",
            "turn on scheduling.k8s.io/v1beta1 (feature gate GenericWorkload), install Volcano or coscheduling, or set "
            "scheduling.gang to Auto",
        )
    if provider == NONE and wished:
        note = f"{', '.join(wished)}: pods are placed one by one, and may wait for each other's GPUs"
        return Finding(NAME, "ok", "the API server serves no gang scheduling", details=(note,))
    waiting = tuple(
        f"{name_of(job)}: {one.get('message', '')}"
        for job in gangs
        if (one := condition(job, "GangScheduled")).get("reason") == "Unschedulable"
    )
    if provider == NONE:
        return Finding(NAME, "ok", "the API server serves none, and no job here needs one")
    return Finding(NAME, "ok", f"pods of a gang are placed together by {provider}", details=waiting)
