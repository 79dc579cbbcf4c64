"""How the rows of a picture are shared by ranks, and the three messages that make layers see beyond their own rows.

Pure sharing, then collectives over `groups.replica`. Every rank of the replica takes part in each, in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed import P2POp, irecv, isend

from frazil_jobs.generation.groups import RankGroups


@dataclass(frozen=True)
class Rows:
    """`height` rows shared by `ranks` ranks, in order, as evenly as whole rows allow."""

    height: int
    ranks: int

    def of(self, rank: int) -> range:
        """The rows of one rank."""
        return range(rank * self.height // self.ranks, (rank + 1) * self.height // self.ranks)

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows of each rank."""
        return tuple(len(self.of(rank)) for rank in range(self.ranks))


def gather_parts(part: torch.Tensor, counts: tuple[int, ...], groups: RankGroups, *, dim: int) -> torch.Tensor:
    """All ranks' parts one behind the other along `dim`, where rank r has `counts[r]` entries. One all-gather."""
    most = max(counts)
    shape = list(part.shape)
    shape[dim] = most - shape[dim]
    padded = part if shape[dim] == 0 else torch.cat([part, part.new_zeros(shape)], dim=dim)
    padded = padded.contiguous()
    every = padded.new_empty((len(counts), *padded.shape))
    dist.all_gather_into_tensor(every, padded.unsqueeze(0), group=groups.replica)
    return torch.cat([whole.narrow(dim, 0, count) for whole, count in zip(every, counts, strict=True)], dim=dim)


def with_halo(part: torch.Tensor, halo: int, groups: RankGroups) -> tuple[torch.Tensor, int, int]:
    """`part` (batch, channels, rows, width) with `halo` rows of each neighbour, and how many came above and below.

    Point to point: each rank sends its outermost rows to the rank above and the rank below.
    """
    rank, last = groups.rank, groups.grid.world - 1
    edge = (*part.shape[:2], halo, part.shape[3])
    above = part.new_empty(edge) if rank > 0 else None
    below = part.new_empty(edge) if rank < last else None
    transfers = []
    for other, mine, theirs in (
        (rank - 1, part[:, :, :halo], above),
        (rank + 1, part[:, :, -halo:], below),
    ):
        if theirs is not None:
            transfers.append(P2POp(isend, mine.contiguous(), other, group=groups.replica))
            transfers.append(P2POp(irecv, theirs, other, group=groups.replica))
    for work in dist.batch_isend_irecv(transfers):
        work.wait()
    parts = [rows for rows in (above, part, below) if rows is not None]
    return torch.cat(parts, dim=2), 0 if above is None else halo, 0 if below is None else halo


def statistics_of_all(part: torch.Tensor, channel_groups: int, groups: RankGroups) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and (biased) variance of each group of channels over all ranks' parts, in float32: (batch, groups) each.

    Each rank's own mean and squared deviation are joined pairwise (Chan, Golub & LeVeque 1983), in the order of the ranks,
    so that all ranks get the same bits. Adding up squares instead would lose digits.
    """
    grouped = part.reshape(part.shape[0], channel_groups, -1).float()
    variance, mean = torch.var_mean(grouped, dim=2, correction=0)
    count = torch.full_like(mean, grouped.shape[2])
    mine = torch.stack([count, mean, variance * count])
    every = mine.new_empty((groups.grid.world, *mine.shape))
    dist.all_gather_into_tensor(every, mine.unsqueeze(0), group=groups.replica)
    count, mean, deviation = every[0].double()
    for other in every[1:].double():
        total = count + other[0]
        difference = other[1] - mean
        mean = mean + difference * other[0] / total
        deviation = deviation + other[2] + difference.square() * count * other[0] / total
        count = total
    return mean.float(), (deviation / count).float()
