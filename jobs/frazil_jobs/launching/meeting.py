"""Where the ranks of a job meet, and which device each has."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.launching.settings import RankSettings

MEETING_FILE: Final = "meeting"
"""In the run's folder: where the ranks of one node find each other, without a port that another process could take."""


def device_of(rank: RankSettings) -> torch.device:
    """This rank's device: its own GPU, or the CPU. Raises BadConfiguration when there are too few GPUs."""
    gpus = torch.cuda.device_count() if rank.device != "cpu" and torch.cuda.is_available() else 0
    if rank.device == "cpu" or (rank.device == "auto" and gpus == 0):
        return torch.device("cpu")
    if gpus < rank.local_ranks:
        raise BadConfiguration(
            f"{rank.local_ranks} ranks need a GPU each, and {gpus} can be used here",
            field="FRAZIL_RANKS",
            remedy="ask for as many GPUs (spec.workers.gpusPerNode), or set FRAZIL_DEVICE=cpu",
        )
    device = torch.device("cuda", rank.local_rank)
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = False  # it chooses kernels by their time: another choice, other bytes
    torch.use_deterministic_algorithms(True, warn_only=True)
    return device


def meet(rank: RankSettings, device: torch.device, *, world: int, timeout: timedelta) -> None:
    """Make the default process group of `world` ranks. No collective waits longer than `timeout`."""
    dist.init_process_group(
        "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
        store=_store(rank, world, timeout),
        rank=rank.rank,
        world_size=world,
        timeout=timeout,
        device_id=device if device.type == "cuda" else None,
    )


def _store(rank: RankSettings, world: int, timeout: timedelta) -> Any:
    if rank.rendezvous is None:
        return dist.FileStore(str(rank.run / MEETING_FILE), world)  # type: ignore[attr-defined]
    host, _, port = rank.rendezvous.rpartition(":")
    return dist.TCPStore(  # type: ignore[attr-defined]
        host.strip("[]"), int(port), world, is_master=rank.rank == 0, timeout=timeout
    )
