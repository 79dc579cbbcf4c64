"""The providers by name, in the order in which one is chosen: what Kubernetes itself serves comes first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from frazil_operator.build.children import GangPlacement
from frazil_operator.build.labels import Owner
from frazil_operator.build.volumes import Job
from frazil_operator.gang import coscheduling, native, volcano

Provider = Literal["native-v1beta1", "volcano", "coscheduling", "none"]
NONE: Final = "none"
API_VERSIONS: Final[Mapping[Provider, str]] = {
    "native-v1beta1": native.API_VERSION,
    "volcano": volcano.API_VERSION,
    "coscheduling": coscheduling.API_VERSION,
}
"""Provider: the group and version whose PodGroup it needs."""
_PLACE: Final[Mapping[str, Callable[..., GangPlacement]]] = {
    "native-v1beta1": native.place,
    "volcano": volcano.place,
    "coscheduling": coscheduling.place,
}


def choose(served: frozenset[str]) -> Provider:
    """The provider to use, of API versions that serve a PodGroup; "none" when none does."""
    return next((name for name, version in API_VERSIONS.items() if version in served), NONE)


def place_gang(provider: str, job: Job, owner: Owner, *, name: str, attempt: int) -> GangPlacement:
    """What a provider needs so that the pods of the gang `name` are bound together or not at all."""
    if provider == NONE or job.spec.workers.nodes_per_replica == 1:
        return GangPlacement()
    return _PLACE[provider](job, owner, name=name, attempt=attempt)
