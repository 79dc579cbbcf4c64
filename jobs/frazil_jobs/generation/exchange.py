"""What ranks tell each other in a denoising step: one prediction each, and in debug runs the hash of their latents."""

from __future__ import annotations

import hashlib

import torch
import torch.distributed as dist

from frazil_jobs.base.exits import FrazilError
from frazil_jobs.generation.groups import RankGroups


class RanksDisagree(FrazilError):
    """Ranks of one replica came to different latents: a sampler, a callback or a driver that isn't deterministic."""


def gather(prediction: torch.Tensor, groups: RankGroups) -> torch.Tensor:
    """The predictions of all conditioning ranks, one below the other in the order of the ranks.

    `prediction` has the same shape on every rank: (rows, …) in, (conditioning · rows, …) out. One collective.
    """
    prediction = prediction.contiguous()
    rows, *rest = prediction.shape
    result = prediction.new_empty((groups.grid.conditioning * rows, *rest))
    dist.all_gather_into_tensor(result, prediction, group=groups.conditioning)
    return result


def by_branch(predictions: torch.Tensor, branches: int) -> torch.Tensor:
    """(branches · images, …) as (branches, images, …), without a copy."""
    return predictions.view(branches, -1, *predictions.shape[1:])


def check_agreement(latent: torch.Tensor, groups: RankGroups, *, step: int) -> None:
    """Raise RanksDisagree, on every rank at once, unless all ranks of the replica hold the same bytes."""
    if groups.replica is None:
        return
    raw = latent.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes()
    mine = torch.frombuffer(bytearray(hashlib.sha256(raw).digest()), dtype=torch.uint8).to(groups.device)
    every = mine.new_empty((groups.grid.world, mine.numel()))
    dist.all_gather_into_tensor(every, mine.unsqueeze(0), group=groups.replica)
    different = [rank for rank in range(1, groups.grid.world) if not torch.equal(every[rank], every[0])]
    if different:
        raise RanksDisagree(
            f"at denoiser call {step}, rank {', '.join(map(str, different))} came with other latents than rank 0",
            remedy="use a generator for each image with the same seed on every rank, and the same software everywhere",
        )
