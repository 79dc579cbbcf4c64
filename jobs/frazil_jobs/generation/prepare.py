"""What a replica decides before it reads any weights: the pipeline, its call, guidance, the rank grid, the batches.

A function of the task, the model folder's small files and the number of ranks, so that every rank decides the same, and
that a mistake in the job costs seconds and no GPU memory.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import diffusers
import torch
import transformers

from frazil_jobs.api.generationjob import GenerationJobSpec
from frazil_jobs.base.exits import BadInput
from frazil_jobs.generation import media
from frazil_jobs.generation.batches import Batch, batches_of, unfinished
from frazil_jobs.generation.calls import CallPlan, plan_call
from frazil_jobs.generation.guidance import FolderConfigs, Guidance, guidance_of, guidance_of_call
from frazil_jobs.generation.load import Folder, denoisers_of, pipeline_class, scheduler_class
from frazil_jobs.generation.modes.asked import AskedMode, acting_grid, asked_mode, on_denoisers
from frazil_jobs.generation.rank_grid import RankGrid, grid_for
from frazil_jobs.generation.sequence import check_sequence
from frazil_jobs.inputs.task import Task


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The decisions of one replica."""

    folder: Folder
    pipeline: type
    scheduler: type | None
    call: CallPlan
    guidance: Guidance
    grid: RankGrid
    acting: RankGrid
    """The grid in whole steps, which all process groups are made for. (Another one for stages of one condition.)"""
    mode: AskedMode
    batches: tuple[Batch, ...]
    """All of the task's, in order."""
    refused: dict[int, list[str]]
    """Shard to what is wrong with rows of it; their batches are left out."""

    def unfinished(self, stored: frozenset[str]) -> list[Batch]:
        """The batches that have to be made."""
        return unfinished(self.batches, stored)


def prepare(task: Task, *, ranks: int) -> Prepared:
    """Decide everything that needs no weights. Raises BadConfiguration naming the field."""
    spec = task.job.spec
    folder = Folder.read(task.model)
    pipeline = pipeline_class(task.pipeline)
    call = plan_call(pipeline, spec.sampling)
    media.check_format(call.kind, spec.output.format, pipeline=call.pipeline)
    scheduler = scheduler_class(folder, spec.sampling.scheduler, pipeline)
    guidance = _guidance(pipeline, task)
    grid = grid_for(task.job, guidance, ranks)
    mode = mode_of(spec, folder, call, guidance, grid, scheduler)
    acting = acting_grid(spec.parallelism, grid)
    check_sequence(task.model, grid.sequence)
    batches, refused = _checked_batches(task, call, pipeline, split=acting.conditioning > 1)
    return Prepared(
        folder=folder,
        pipeline=pipeline,
        scheduler=scheduler,
        call=call,
        guidance=guidance,
        grid=grid,
        acting=acting,
        mode=mode,
        batches=tuple(batches),
        refused=refused,
    )


def mode_of(
    spec: GenerationJobSpec, folder: Folder, call: CallPlan, guidance: Guidance, grid: RankGrid, scheduler: type | None
) -> AskedMode:
    """The job's mode as it will run. Raises BadConfiguration."""
    own = folder.components().get("scheduler")
    kind = scheduler or (getattr(diffusers, own[1], None) if own is not None else None)
    steps = spec.sampling.steps
    if steps is None and "num_inference_steps" in call.parameters:
        default = call.parameters["num_inference_steps"].default
        steps = default if isinstance(default, int) else None
    mode = asked_mode(
        spec.parallelism,
        grid,
        guidance,
        scheduler=(kind, folder.config("scheduler", "scheduler_config.json")) if kind is not None else None,
        steps=steps,
        extra=spec.sampling.extra,
    )
    return mode if mode.runs == "Exact" else on_denoisers(mode, denoisers_of(folder))


def _guidance(pipeline: type, task: Task) -> Guidance:
    negative_prompts = any(row.negative_prompt is not None for shard in task.shards for row in shard.rows)
    return guidance_of(pipeline, task.job.spec.sampling, task.model, negative_prompts=negative_prompts)


def _checked_batches(
    task: Task, call: CallPlan, pipeline: type, *, split: bool
) -> tuple[list[Batch], dict[int, list[str]]]:
    """The batches of all shards, without those of rows that this pipeline, or this split, can't take."""
    spec = task.job.spec
    batch_size = spec.sampling.batch_size if call.takes_prompts else 1
    configs = FolderConfigs.read(task.model)
    batches: list[Batch] = []
    refused: dict[int, list[str]] = {}
    for shard in task.shards:
        for batch in batches_of(spec, shard, batch_size=batch_size):
            try:
                _check_rows(batch, call)
                if split:
                    _check_guidance(batch, call, configs, pipeline=pipeline)
            except BadInput as error:
                reasons = refused.setdefault(shard.index, [])
                reasons.extend({str(error)} - set(reasons))
            else:
                batches.append(batch)
    return batches, refused


def _check_rows(batch: Batch, call: CallPlan) -> None:
    for item in batch.items:
        call.check_row(item.row, prompt_index=item.prompt_index)


def _check_guidance(batch: Batch, call: CallPlan, configs: FolderConfigs, *, pipeline: type) -> None:
    """Raise BadInput when a row's own arguments ask for guidance that ranks can't share. (Without guidance, all run it.)"""
    own = guidance_of_call(pipeline, call.arguments(batch.items, pictures={}), configs)
    if own.style == "unsupported":
        raise BadInput(
            f"the ranks can't share its guidance: {own.reason}",
            field=f"prompt {batch.items[0].prompt_index}",
            remedy="put such prompts into a job of their own, with spec.parallelism.conditioning 1",
        )


def fingerprint(task: Task) -> str:
    """What all ranks of a replica must have in common, as one hash: the task and the libraries."""
    versions = (torch.__version__, diffusers.__version__, transformers.__version__)
    document = task.model_dump_json(by_alias=True) + json.dumps(versions)
    return hashlib.sha256(document.encode()).hexdigest()
