"""What the API server serves: asked again from time to time, never guessed from its version."""

from __future__ import annotations

from dataclasses import dataclass

from frazil_operator.gang.placement import API_VERSIONS, choose
from frazil_operator.kube.client import Kube
from frazil_operator.reconcile.plan import GangSupport

KUEUE = "kueue.x-k8s.io"


@dataclass(frozen=True)
class Served:
    """Of the kinds that not every cluster has, those that are used."""

    gang: GangSupport
    workloads: str | None
    """API version of Kueue's Workloads; None without Kueue."""

    @property
    def podgroups(self) -> str | None:
        """API version of the gang provider's PodGroups; None without a provider."""
        return API_VERSIONS.get(self.gang.provider)


async def served(kube: Kube) -> Served:
    """What is served just now. Raises KubeError."""
    return Served(await _gang_support(kube), await _kueue_version(kube))


async def _gang_support(kube: Kube) -> GangSupport:
    """The gang provider to use."""
    found = {version for version in API_VERSIONS.values() if await kube.serves(version, "PodGroup")}
    return GangSupport(choose(frozenset(found)))


async def _kueue_version(kube: Kube) -> str | None:
    """The newest version of Kueue's group that serves Workloads."""
    groups = (await kube.get("/apis")).get("groups", ())
    versions = next((group.get("versions", ()) for group in groups if group.get("name") == KUEUE), ())
    for version in versions:
        name = str(version["groupVersion"])
        if await kube.serves(name, "Workload"):
            return name
    return None
