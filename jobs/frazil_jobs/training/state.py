"""The state of a run as named tensors, and back: what a checkpoint holds.

    model/<weight>              weights of the stages, by their names in the whole model
    optimizer/<weight>/<part>   what the optimizer keeps of a weight, where it keeps something
    ema/<weight>                running means
    rank/<rank>                 what each rank keeps for itself, as bytes: its freezing controller, its place in the data

Names do not depend on how the model is cut. What the optimizer doesn't have (a tensor that was frozen from the start) isn't
there, and isn't made by reading.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.optimizer import Ema

METADATA: Final = "metadata"
"""The file that torch calls `.metadata`: a hidden name is no key of a store."""
_TORCHS_NAME: Final = ".metadata"


class _Named(FileSystem):
    """A checkpoint's files, named so that a store takes them. Nothing is renamed: the ranks of a pod read one folder."""

    def concat_path(self, path: str | os.PathLike[str], suffix: str) -> str | os.PathLike[str]:
        return super().concat_path(path, METADATA if suffix == _TORCHS_NAME else suffix)


def gathered(
    weights: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, ema: Ema | None, *, rank: int, own: Any
) -> dict[str, torch.Tensor]:
    """This rank's part of the state, copied to the CPU: training may go on while it's written."""
    state: dict[str, torch.Tensor] = {}
    for name, weight in weights.items():
        state[f"model/{name}"] = weight
        for part, value in optimizer.state.get(weight, {}).items():
            if isinstance(value, torch.Tensor):
                state[f"optimizer/{name}/{part}"] = value
        if ema is not None:
            state[f"ema/{name}"] = ema.means[name]
    copied = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
    copied[f"rank/{rank}"] = _as_bytes(own)
    return copied


def write(state: dict[str, torch.Tensor], folder: Path, group: dist.ProcessGroup | None) -> list[Path]:
    """Write a state with the other ranks. Returns the files that this rank wrote. A collective."""
    rank = dist.get_rank(group) if dist.is_initialized() else 0
    folder.mkdir(parents=True, exist_ok=True)
    writer = FileSystemWriter(folder, single_file_per_rank=True, sync_files=False)
    writer.fs = _Named()
    save(
        state,
        storage_writer=writer,
        process_group=group,
        no_dist=not dist.is_initialized(),
    )
    files = sorted(folder.glob(f"__{rank}_*.distcp"))
    if rank == 0:
        files.append(folder / METADATA)
    return files


def read(
    folder: Path,
    weights: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    ema: Ema | None,
    *,
    rank: int,
    group: dist.ProcessGroup | None,
) -> Any:
    """Set weights, optimizer and means to what a checkpoint holds; returns what this rank kept for itself. A collective.

    The checkpoint is of this model. Raises BadConfiguration where it was written with other ranks or without means.
    """
    reader = FileSystemReader(folder)
    reader.fs = _Named()
    stored = {
        name: value
        for name, value in reader.read_metadata().state_dict_metadata.items()
        if isinstance(value, TensorStorageMetadata)
    }
    wanted = _wanted(stored, weights, ema, rank)
    state = {name: torch.empty(stored[name].size, dtype=stored[name].properties.dtype) for name in wanted}
    load(state, storage_reader=reader, process_group=group, no_dist=not dist.is_initialized())
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(state[f"model/{name}"])
            if ema is not None:
                ema.means[name].copy_(state[f"ema/{name}"])
            parts = {
                key.rpartition("/")[2]: value
                for key, value in state.items()
                if key.startswith("optimizer/") and key.rpartition("/")[0] == f"optimizer/{name}"
            }
            if parts:
                # A counter of steps stays where the optimizer makes it: on the CPU.
                optimizer.state[weight] = {
                    part: value if value.ndim == 0 else value.to(weight.device) for part, value in parts.items()
                }
    return _from_bytes(state[f"rank/{rank}"])


def _wanted(
    stored: Mapping[str, TensorStorageMetadata], weights: Mapping[str, nn.Parameter], ema: Ema | None, rank: int
) -> list[str]:
    if ema is not None and any(f"ema/{name}" not in stored for name in weights):
        raise other_model("it has no running means of the weights (optimizer.ema)")
    if f"rank/{rank}" not in stored:
        raise other_model(f"it has nothing of rank {rank}: it was written by another number of ranks")
    mine = set(weights)
    wanted = [f"model/{name}" for name in weights] + [f"rank/{rank}"]
    if ema is not None:
        wanted += [f"ema/{name}" for name in weights]
    kept = [name for name in stored if name.startswith("optimizer/")]
    return [*wanted, *(name for name in kept if name.removeprefix("optimizer/").rpartition("/")[0] in mine)]


def other_model(why: str) -> BadConfiguration:
    """The error for a checkpoint that this job can't go on from."""
    return BadConfiguration(
        f"the newest checkpoint is of another model or job: {why}",
        field="spec.checkpoint.resume",
        remedy="give the job another name (its results then have a prefix of their own), or set resume: Never",
    )


def _as_bytes(value: Any) -> torch.Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _from_bytes(data: torch.Tensor) -> Any:
    return torch.load(io.BytesIO(data.numpy().tobytes()), weights_only=True)
