"""What the API server serves: asked again from time to time, never guessed from its version."""

from __future__ import annotations

from frazil_operator.gang.placement import API_VERSIONS, choose
from frazil_operator.kube.client import Kube
from frazil_operator.reconcile.plan import GangSupport

KUEUE = "kueue.x-k8s.io"


async def gang_support(kube: Kube) -> GangSupport:
    """The gang provider to use just now."""
    served = {version for version in API_VERSIONS.values() if await kube.serves(version, "PodGroup")}
    return GangSupport(choose(frozenset(served)))


async def kueue_version(kube: Kube) -> str | None:
    """The newest version of Kueue's group that serves Workloads; None without Kueue."""
    groups = (await kube.get("/apis")).get("groups", ())
    versions = next((group.get("versions", ()) for group in groups if group.get("name") == KUEUE), ())
    for version in versions:
        name = str(version["groupVersion"])
        if await kube.serves(name, "Workload"):
            return name
    return None
