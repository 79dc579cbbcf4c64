"""The trained model as a folder of diffusers or transformers in the store, which a GenerationJob's model.uri can name.

Each stage's weights are one file of the library's own split format, written by the rank that holds them; the first rank
writes the index and all that stands around it. Weights are float32, or their running means where the job keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from frazil_jobs.base.files import content_type_of
from frazil_jobs.outputs.spool import Entry, Spool
from frazil_jobs.training.cutting import Stage
from frazil_jobs.training.grid import Grid
from frazil_jobs.training.optimizer import Ema
from frazil_jobs.training.tasks import Task

FOLDER: Final = "model"
"""Below the job's prefix."""


def export(
    task: Task,
    stages: Mapping[int, Stage],
    *,
    count: int,
    ema: Ema | None,
    grid: Grid,
    group: dist.ProcessGroup | None,
    spool: Spool,
    scratch: Path,
) -> list[Entry]:
    """Put the model into the spool. Returns this rank's entries. A collective of all ranks.

    `count` is the number of all stages. `scratch` lies on the spool's volume; all that was in the spool is stored.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    written: dict[str, dict[str, int]] = {}
    files: list[tuple[str, Path]] = []
    with ema.in_place() if ema is not None else nullcontext():
        for number, stage in stages.items() if grid.replica == 0 else ():
            tensors = {
                name: value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype).contiguous()
                for name, value in {**stage.weights(), **stage.saved_buffers()}.items()
            }
            name = _file_name(task, number, count)
            save_file(tensors, scratch / name, metadata={"format": "pt"})
            written[name] = {key: value.numel() * value.element_size() for key, value in tensors.items()}
            files.append((_key(task, name), scratch / name))
    everywhere: list[Any] = [written]
    if group is not None:
        everywhere = [None] * dist.get_world_size(group)
        dist.all_gather_object(everywhere, written, group=group)
    if grid.rank == 0:
        files += _around(task, {name: sizes for part in everywhere for name, sizes in part.items()}, scratch)
    return [spool.take(key, path, content_type=content_type_of(path)) for key, path in files]


def _around(task: Task, written: Mapping[str, Mapping[str, int]], scratch: Path) -> list[tuple[str, Path]]:
    """Configurations and everything else that isn't trained, and the index of weights that are split."""
    folder = scratch / FOLDER
    folder.mkdir(parents=True)
    task.save_around(folder)
    if len(written) > 1:
        index = {
            "metadata": {"total_size": sum(size for sizes in written.values() for size in sizes.values())},
            "weight_map": {tensor: name for name, sizes in sorted(written.items()) for tensor in sizes},
        }
        path = folder / task.weights_folder / f"{task.weights_name}.safetensors.index.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(index, indent=2, sort_keys=True))
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(f"{FOLDER}/{path.relative_to(folder).as_posix()}", path) for path in found]


def _file_name(task: Task, number: int, count: int) -> str:
    split = f"-{number + 1:05d}-of-{count:05d}" if count > 1 else ""
    return f"{task.weights_name}{split}.safetensors"


def _key(task: Task, name: str) -> str:
    return "/".join(part for part in (FOLDER, task.weights_folder, name) if part)
