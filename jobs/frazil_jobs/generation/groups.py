"""The process groups of a replica's rank grid, made once for the life of the process, each with the job's time-out.

The default process group has to be the replica. A rank that another one leaves waiting for longer than the time-out gets
an error, so that no collective waits for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from frazil_jobs.generation.rank_grid import Place, RankGrid


@dataclass(frozen=True, kw_only=True)
class RankGroups:
    """One rank's view of its grid. A group is None where it would hold this rank alone."""

    grid: RankGrid
    rank: int
    device: torch.device
    replica: dist.ProcessGroup | None = None
    conditioning: dist.ProcessGroup | None = None
    links: tuple[dist.ProcessGroup, dist.ProcessGroup] | None = None
    """For transfers between stages, to later and to earlier ones; made where a mode has stages."""
    sequence: DeviceMesh | None = None
    """Dimensions "ring" (1) and "ulysses" (the degree), as diffusers' context parallelism wants it."""

    @property
    def place(self) -> Place:
        """Where this rank stands."""
        return self.grid.place_of(self.rank)


def one_rank(device: torch.device | str = "cpu") -> RankGroups:
    """A replica of one rank, which needs no process group."""
    return RankGroups(grid=RankGrid(), rank=0, device=torch.device(device))


def join_groups(
    grid: RankGrid, *, timeout: timedelta, device: torch.device | str = "cpu", staged: bool = False
) -> RankGroups:
    """Make the groups of `grid` inside the default process group, which must be initialised and as large as the grid.

    `staged`: with the groups for transfers between stages. Every rank of the replica calls this once. Raises ValueError
    where the sizes differ.
    """
    device = torch.device(device)
    if grid.world == 1:
        return one_rank(device)
    if dist.get_world_size() != grid.world:
        raise ValueError(f"{grid} needs {grid.world} ranks, and the process group has {dist.get_world_size()}")
    rank = dist.get_rank()

    def make(sets: list[tuple[int, ...]]) -> dist.ProcessGroup | None:
        """Every rank takes part in making each group, in the same order, and keeps its own."""
        mine: dist.ProcessGroup | None = None
        for ranks in sets:
            group = dist.new_group(list(ranks), timeout=timeout)
            if rank in ranks:
                mine = cast(dist.ProcessGroup, group)
        return mine

    everyone = [tuple(range(grid.world))]
    up, down = (make(everyone), make(everyone)) if staged else (None, None)
    return RankGroups(
        grid=grid,
        rank=rank,
        device=device,
        replica=make(everyone),
        conditioning=make(grid.conditioning_groups()) if grid.conditioning > 1 else None,
        links=(up, down) if up is not None and down is not None else None,
        sequence=_sequence_mesh(grid, device=device, timeout=timeout) if grid.sequence > 1 else None,
    )


def _sequence_mesh(grid: RankGrid, *, device: torch.device, timeout: timedelta) -> DeviceMesh:
    """The mesh that diffusers cuts sequences over, of this rank's row.

    `DeviceMesh` makes its groups with the backend's default time-out (half an hour), so theirs are set afterwards. The
    flattened dimension is made here because diffusers would make it later, without a time-out.
    """
    ranks = torch.arange(grid.world).reshape(grid.conditioning * grid.pipeline, 1, grid.sequence)
    mesh = DeviceMesh(device.type, ranks, mesh_dim_names=("row", "ring", "ulysses"))
    row = mesh["ring", "ulysses"]
    for group in (mesh.get_group("ring"), mesh.get_group("ulysses"), row._flatten().get_group()):
        _set_timeout(timeout, group)
    return row


def _set_timeout(timeout: timedelta, group: dist.ProcessGroup) -> None:
    """`torch.distributed.set_timeout`, which had another name before torch 2.15."""
    setter = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    setter(timeout, group)
