"""Whether the nodes have what the jobs ask for."""

from __future__ import annotations

from typing import Final

from frazil_cli.cluster.client import Object
from frazil_cli.cluster.observed import Finding, Observed, Unknown, condition, name_of

NAME: Final = "accelerators"
DEFAULT: Final = "nvidia.com/gpu"
_HOPELESS: Final = ("untolerated taint", "didn't match Pod's node affinity", "unbound immediate PersistentVolumeClaims")
"""Words of the scheduler that waiting doesn't change."""


def check(observed: Observed) -> Finding:
    """No GPU resource on any node, too few on each, or none that the pods may use."""
    asked = _asked(observed.at_work)
    waiting = _unscheduled(observed)
    if isinstance(observed.nodes, Unknown):
        return _unseen(observed.nodes, waiting)
    offered = _offered(list(observed.nodes))
    if not observed.nodes:
        return Finding(NAME, "wrong", "the cluster has no nodes", "add nodes with GPUs")
    for resource, (most, job) in (asked or {DEFAULT: (1, "")}).items():
        best = max(offered.get(resource, [0]))
        if best == 0:
            others = sorted(name for name in offered if "/" in name and name != resource and max(offered[name]))
            who = f"{job} asks for {resource}, and " if job else ""
            return Finding(
                NAME,
                "wrong",
                f"{who}no node that is ready offers {resource}",
                f"nodes offer {', '.join(others)}: name it in spec.workers.accelerator"
                if others
                else "install the device plugin of your GPUs (NVIDIA's GPU operator), and see `kubectl describe nodes`",
            )
        if best < most:
            return Finding(
                NAME,
                "wrong",
                f"{job} asks for {most} {resource} a pod, and the largest node has {best}",
                f"set spec.workers.gpusPerNode to {best} or less, with nodesPerReplica for the rest",
            )
    hopeless = [words for words in waiting if any(mark in words for mark in _HOPELESS)]
    if hopeless:
        return Finding(
            NAME,
            "wrong",
            "pods find no node that they may use",
            "see spec.workers.template: tolerations, nodeSelector and affinity must fit the nodes",
            tuple(hopeless[:3]),
        )
    shown = {resource: counts for resource, counts in offered.items() if resource in (asked or (DEFAULT,))}
    said = ", ".join(f"{sum(counts)} {resource} on {len(counts)} nodes" for resource, counts in shown.items())
    return Finding(NAME, "ok", said.replace("on 1 nodes", "on 1 node"), details=tuple(waiting[:3]))


def _asked(jobs: list[Object]) -> dict[str, tuple[int, str]]:
    """Resource: the most that a pod asks for, and the job that does."""
    found: dict[str, tuple[int, str]] = {}
    for job in jobs:
        workers = job["spec"].get("workers") or {}
        resource, count = str(workers.get("accelerator") or DEFAULT), int(workers.get("gpusPerNode") or 1)
        if count > found.get(resource, (0, ""))[0]:
            found[resource] = (count, name_of(job))
    return found


def _offered(nodes: list[Object]) -> dict[str, list[int]]:
    """Extended resources of the nodes that take pods: how many each has, where it has any."""
    found: dict[str, list[int]] = {}
    for node in nodes:
        if (node.get("spec") or {}).get("unschedulable") or condition(node, "Ready").get("status") != "True":
            continue
        for resource, count in ((node.get("status") or {}).get("allocatable") or {}).items():
            if "/" in resource and str(count).isdigit() and int(count) > 0:
                found.setdefault(str(resource), []).append(int(count))
    return found


def _unscheduled(observed: Observed) -> list[str]:
    if isinstance(observed.pods, Unknown):
        return []
    return [
        f"{name_of(pod)} waits: {one.get('message', '')}"
        for pod in observed.pods
        if (one := condition(pod, "PodScheduled")).get("status") == "False"
    ]


def _unseen(nodes: Unknown, waiting: list[str]) -> Finding:
    """Who may not see nodes hears what the scheduler says of their pods."""
    if waiting:
        return Finding(
            NAME,
            "wrong",
            "pods find no node",
            "see the scheduler's words; the nodes themselves are the administrator's to look at",
            tuple(waiting[:3]),
        )
    return Finding(NAME, "unknown", nodes.why)
