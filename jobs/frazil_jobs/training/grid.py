"""Which rank does what: pipeline x data ranks, those of one pipeline next to each other, and the groups they talk in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch.distributed as dist


@dataclass(frozen=True)
class Grid:
    """Rank r is place r mod pipeline of replica r div pipeline."""

    pipeline: int
    data: int
    rank: int

    @property
    def world(self) -> int:
        """All ranks."""
        return self.pipeline * self.data

    @property
    def place(self) -> int:
        """In the pipeline."""
        return self.rank % self.pipeline

    @property
    def replica(self) -> int:
        """Which copy of the pipeline."""
        return self.rank // self.pipeline

    def pipelines(self) -> list[list[int]]:
        """The ranks of each pipeline."""
        return [[replica * self.pipeline + place for place in range(self.pipeline)] for replica in range(self.data)]

    def copies(self) -> list[list[int]]:
        """The ranks that hold the same stages."""
        return [[replica * self.pipeline + place for replica in range(self.data)] for place in range(self.pipeline)]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """One rank's view. A group is None where it would hold this rank alone."""

    pipeline: dist.ProcessGroup | None = None
    data: dist.ProcessGroup | None = None
    control: dist.ProcessGroup | None = None
    """All ranks, on the CPU: agreements between steps."""
    checkpoint: dist.ProcessGroup | None = None
    """All ranks, on the CPU, of the thread that writes checkpoints."""


def join(grid: Grid, *, timeout: timedelta) -> Groups:
    """Make the groups inside the default process group. Every rank calls this once."""
    if grid.world == 1:
        return Groups()

    def make(sets: list[list[int]], backend: str | None = None) -> dist.ProcessGroup | None:
        mine = None
        for ranks in sets:
            if len(ranks) == 1:
                continue
            group = dist.new_group(ranks, timeout=timeout, backend=backend)
            if grid.rank in ranks:
                mine = cast(dist.ProcessGroup, group)
        return mine

    everyone = [list(range(grid.world))]
    return Groups(
        pipeline=make(grid.pipelines()),
        data=make(grid.copies()),
        control=make(everyone, "gloo"),
        checkpoint=make(everyone, "gloo"),
    )
