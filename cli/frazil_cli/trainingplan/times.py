"""How long the job's actions take: as a run recorded them, else counted from the model's config, else only in proportion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.base.files import read_json
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.locations import Local
from frazil_jobs.training.planning.estimate import Device, estimate_job, shape_of
from frazil_jobs.training.planning.models import BlockTime, ModelTime
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.timings import Timings

FIELD: Final = "spec.model.uri"
OPTION: Final = "--timings"
_BLOCKS_ASSUMED: Final = 8
"""Blocks of a stage, where nobody knows."""


@dataclass(frozen=True)
class Times:
    """Times of the job's model."""

    model: ModelTime
    recorded: Timings | None
    """Those of a file, when they are of the job's own order."""
    source: str
    """Where they come from, for people."""
    relative: bool
    """Whether only their proportions mean something."""
    blocks: int | None
    """Of the model; None when nobody knows."""


def times_of(
    job: TrainingJob, order: ScheduleOrder, *, base_dir: Path, access: Access, timings: Path | None, device: Device
) -> Times:
    """The best times that are to be had. Raises FrazilError for a file or a model folder that can't be used."""
    config = _config(job, base_dir=base_dir, access=access)
    shape = None
    if config is not None:
        side = _latent_side(job, base_dir=base_dir, access=access)
        shape = shape_of(job.spec.task, config, sequence_length=job.spec.dataset.sequence_length, latent_side=side)
    blocks = shape.blocks if shape else None
    if timings is not None:
        return _recorded(timings, order, blocks)
    if shape is not None:
        model = estimate_job(job.spec, shape, device)
        said = (
            f"counted from the model's config, at {device.teraflops:g} TFLOP/s and {device.gigabytes:g} GB/s a device"
        )
        return Times(model, None, said, relative=False, blocks=blocks)
    same = BlockTime(forward=1.0, backward_input=1.0, backward_weight=1.0)
    model = ModelTime(blocks=(same,) * (_BLOCKS_ASSUMED * order.stages))
    return Times(model, None, "assumed: equal blocks, dX and dW as long as a forward", relative=True, blocks=None)


def _recorded(file: Path, order: ScheduleOrder, blocks: int | None) -> Times:
    try:
        found = Timings.from_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadConfiguration(f"{file} can't be read: {reason}", field=OPTION, remedy="name a timings file") from None
    except BadInput as error:
        where = f"{error.field}: " if error.field else ""
        raise BadInput(f"{file}: {where}{error.message}", field=OPTION, remedy=error.remedy) from None
    stages = found.stage_times()
    each = found.stage_blocks or (max(1, (blocks or _BLOCKS_ASSUMED * len(stages)) // len(stages)),) * len(stages)
    hop = sum(found.hop_seconds) / len(found.hop_seconds) if found.hop_seconds else 0.0
    model = ModelTime.of_stages(stages, blocks=each, provenance=found.provenance, hop_seconds=hop)
    same = set(found.actions) == set(order.actions)
    said = f"{found.provenance}, {file}" + ("" if same else " (of another schedule: stages cut anew from its means)")
    known = blocks or (sum(found.stage_blocks) or None)
    return Times(model, found if same else None, said, relative=False, blocks=known)


def _config(job: TrainingJob, *, base_dir: Path, access: Access) -> Mapping[str, Any] | None:
    """The config of what is trained; None when the model is not on this machine."""
    folder = "transformer" if job.spec.task == "DiffusionTransformer" else "."
    return _read(job, f"{folder}/config.json", base_dir=base_dir, access=access, needed=True)


def _latent_side(job: TrainingJob, *, base_dir: Path, access: Access) -> int | None:
    """What the transformer sees of a picture of dataset.imageSize, each way; None for the model's own size."""
    if job.spec.task != "DiffusionTransformer" or job.spec.dataset.image_size is None:
        return None
    vae = _read(job, "vae/config.json", base_dir=base_dir, access=access, needed=False)
    levels = len((vae or {}).get("block_out_channels") or [None])
    return int(job.spec.dataset.image_size // 2 ** (levels - 1))


def _read(job: TrainingJob, name: str, *, base_dir: Path, access: Access, needed: bool) -> Mapping[str, Any] | None:
    where = access.locate(job.spec.model.uri, base_dir=base_dir, field=FIELD)
    if not isinstance(where, Local):
        return None
    file = where.path / name
    if not file.is_file():
        if not needed:
            return None
        raise BadConfiguration(
            f"there is no {file}",
            field=FIELD,
            remedy=f"name a folder with the model's config, or hf:// or s3://, for task {job.spec.task}",
        )
    try:
        found = read_json(file)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadConfiguration(f"{file} is no JSON object", field=FIELD, remedy="copy or download it again")
    return found
