"""How ranks compare notes on freezing: rare, small messages over the groups that the engine has anyway."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch.distributed as dist

from frazil_jobs.base.exits import FrazilError


class RanksDisagree(FrazilError):
    """Ranks hold different plans or states: they would freeze different tensors, and replicas would part."""


class Exchange(Protocol):
    """All ranks of pipeline x data. Every rank calls the same method at the same time."""

    @property
    def leads(self) -> bool:
        """Whether this is the one rank that solves."""

    def gather(self, value: Any) -> list[Any]:
        """What every rank gave, in the same order everywhere."""

    def broadcast(self, value: Any) -> Any:
        """What the leader gave."""


class Alone:
    """One rank."""

    leads = True

    def gather(self, value: Any) -> list[Any]:
        """Its own value."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Its own value."""
        return value


class Groups:
    """Along the pipeline, then across replicas. Groups bring their time-outs."""

    def __init__(self, pipeline: dist.ProcessGroup | None, data: dist.ProcessGroup | None) -> None:
        self._groups = [group for group in (pipeline, data) if group is not None]

    @property
    def leads(self) -> bool:
        """The first of its pipeline and of its replicas."""
        return all(dist.get_rank(group) == 0 for group in self._groups)

    def gather(self, value: Any) -> list[Any]:
        """Ranks of a pipeline side by side, replica after replica."""
        values = [value]
        for group in self._groups:
            parts: list[Any] = [None] * dist.get_world_size(group)
            dist.all_gather_object(parts, values, group=group)
            values = [one for part in parts for one in cast(list[Any], part)]
        return values

    def broadcast(self, value: Any) -> Any:
        """From the leader along its pipeline, then from each of its ranks to the replicas."""
        held = [value]
        for group in self._groups:
            dist.broadcast_object_list(held, group_src=0, group=group)
        return held[0]


def agree(exchange: Exchange, what: str, texts: Sequence[str]) -> None:
    """Raises RanksDisagree on every rank, unless all hold the same texts. Only hashes travel."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    digests = exchange.gather(digest)
    if len(set(digests)) > 1:
        common = max(set(digests), key=digests.count)
        others = [str(rank) for rank, one in enumerate(digests) if one != common]
        raise RanksDisagree(
            f"{what} differs between ranks: rank {', '.join(others)} of {len(digests)} holds another than the rest",
            remedy="all ranks must run the same code on the same job and checkpoint; "
            "resume from the last committed checkpoint",
        )
