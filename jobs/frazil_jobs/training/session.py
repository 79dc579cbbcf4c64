"""What one rank does from start to end: check, meet the others, build its stages, go on from a checkpoint, train, export.

The order is the point: all that can be wrong with model, data and job is found before the ranks meet and before any weights
are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import diffusers
import torch
import torch.distributed as dist
import transformers
from torch import nn

from frazil_jobs.base.exits import BadConfiguration, BadInput, TryAgain
from frazil_jobs.base.log import get_logger
from frazil_jobs.inputs.training_task import TrainingTask
from frazil_jobs.launching.cpu import use_cores
from frazil_jobs.launching.launcher import scratch_of
from frazil_jobs.launching.meeting import device_of, meet
from frazil_jobs.launching.settings import REPLAY_VARIABLE, RankSettings
from frazil_jobs.launching.stopping import StopFlag
from frazil_jobs.outputs.spool import Spool
from frazil_jobs.training.checkpointing import Checkpoints, all_stored
from frazil_jobs.training.cutting import Stage
from frazil_jobs.training.data.feed import Data, open_data
from frazil_jobs.training.export import export
from frazil_jobs.training.freezing.freezer import Freezer
from frazil_jobs.training.freezing.injected import InjectedTimes
from frazil_jobs.training.freezing.plans import Planned
from frazil_jobs.training.grid import Grid, Groups, join
from frazil_jobs.training.optimizer import Ema, make_optimizer
from frazil_jobs.training.partition import stage_blocks
from frazil_jobs.training.pipeline.engine import PipelineEngine
from frazil_jobs.training.planning.schedules import ScheduleOrder, order_of
from frazil_jobs.training.room import check_room, checkpoint_bytes
from frazil_jobs.training.tasks import Task, check_stages, open_task
from frazil_jobs.training.telling import Teller, manifest, report
from frazil_jobs.training.trainer import Trainer

COLLECTIVE_SECONDS: Final = 300
"""No collective of the training waits longer: beyond it, a rank is taken for lost."""
MEETING_SECONDS: Final = 1800
"""How long ranks wait for each other at the start: pods fetch models at different speeds."""

Value = TypeVar("Value")

log = get_logger(__name__)


def run_rank(rank: RankSettings, flag: StopFlag) -> None:
    """Run one rank. Raises what the process ends with."""
    use_cores(rank.threads)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    given = TrainingTask.read(rank.spool)
    spec = given.job.spec
    grid = Grid(pipeline=spec.parallelism.pipeline, data=spec.parallelism.data, rank=rank.rank)
    if grid.world != rank.world:
        raise BadConfiguration(
            f"pipeline × data are {grid.world} ranks, and {rank.world} were started", field="spec.parallelism"
        )
    task = open_task(given.job, given.model)
    check_stages(task, order_for(task).stages)
    data = open_data(task, given.dataset, scratch=scratch_of(rank.run) / "data")
    device = device_of(rank)
    if grid.world > 1:
        meet(rank, device, world=grid.world, timeout=timedelta(seconds=MEETING_SECONDS))
    groups = join(grid, timeout=timedelta(seconds=COLLECTIVE_SECONDS))
    _compare(_identity(given), groups)
    _run(rank, flag, given, grid, groups, task, data, device)
    if grid.world > 1:
        dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone


def _run(
    rank: RankSettings,
    flag: StopFlag,
    given: TrainingTask,
    grid: Grid,
    groups: Groups,
    task: Task,
    data: Data,
    device: torch.device,
) -> None:
    spool = Spool(rank.spool, rank.spool_bytes) if rank.spool_bytes else Spool(rank.spool)
    spec = given.job.spec
    blocks = stage_blocks(task, order_for(task))
    stages, fingerprint = build_stages(task, grid, device, blocks)
    if rank.spool_bytes is not None:
        sizes = _everyones(checkpoint_bytes(spec.optimizer, stages.values()), groups)
        check_room(sizes, pipeline=grid.pipeline, local=rank.local_ranks, room=rank.spool_bytes)
    task.to(device)
    trainer = make_trainer(
        task,
        data,
        stages,
        grid,
        groups,
        checkpoints=Checkpoints(
            spool=spool,
            folder=rank.run / "checkpoints",
            attempt=given.attempt,
            keep=spec.checkpoint.keep_last,
            group=groups.checkpoint,
            gave_up=lambda: False,
        ),
        fingerprint=fingerprint,
        device=device,
        replay=plans_of(rank.replay) if rank.replay is not None else (),
    )
    trainer.attempt = given.attempt
    trainer.stopped = flag.asked
    trainer.loader_workers = 0 if device.type == "cpu" else 2
    if grid.rank == 0:
        trainer.report = Teller(spool, given).tell
    if given.resume is not None:
        trainer.resume(given.resume)
        log.info("goes on from a checkpoint", step=trainer.step)
    trainer.run()
    entries = export(
        task,
        stages,
        count=order_for(task).stages,
        ema=trainer.ema,
        grid=grid,
        group=groups.control,
        spool=spool,
        scratch=rank.run / "export",
    )
    if not all_stored(spool, entries, groups.control, flag.asked):
        raise TryAgain("stopped before the model was stored; the last checkpoint is")
    exported = sorted((one for part in _everyones(entries, groups) for one in part), key=lambda one: one.key)
    pages = report(spool, given, trainer, blocks=blocks) if grid.rank == 0 else []
    if not all_stored(spool, pages, groups.control, flag.asked):
        raise TryAgain("stopped before the report was stored; the model is")
    last = [manifest(spool, given, trainer, outputs=[*exported, *pages])] if grid.rank == 0 else []
    if not all_stored(spool, last, groups.control, flag.asked):
        raise TryAgain("stopped before the manifest was stored; the model is")


def plans_of(file: Path) -> list[dict[str, Any]]:
    """The freezing plans that a run left in its plans.json. Raises BadConfiguration for a file that holds none."""
    try:
        found = [Planned.from_json(entry).to_json() for entry in json.loads(file.read_text(encoding="utf-8"))]
        if not found:
            raise ValueError("it is empty")
        return found
    except (OSError, ValueError, KeyError, TypeError, BadInput) as error:
        raise BadConfiguration(
            f"{file} holds no freezing plans: {error}",
            field=REPLAY_VARIABLE,
            remedy="name the plans.json of a run's results",
        ) from None


def order_for(task: Task) -> ScheduleOrder:
    """What the ranks of a task's job do."""
    parallelism = task.spec.parallelism
    return order_of(parallelism.schedule, ranks=parallelism.pipeline, microbatches=parallelism.microbatches)


def build_stages(task: Task, grid: Grid, device: torch.device, blocks: Sequence[range]) -> tuple[dict[int, Stage], str]:
    """This rank's stages with their initial weights, on its device, and the fingerprint of the whole model. `blocks`: those
    of every stage."""
    model: nn.Module | None = task.model()
    assert model is not None
    fingerprint = fingerprint_of(task, model)
    stages = {}
    for number in order_for(task).placement.stages_of(grid.place):
        stages[number] = task.stage(blocks[number], of=model).to(device)
        model = None
    log.info("stages", blocks={number: str(blocks[number]) for number in stages})
    return stages, fingerprint


def make_trainer(
    task: Task,
    data: Data,
    stages: dict[int, Stage],
    grid: Grid,
    groups: Groups,
    *,
    checkpoints: Checkpoints,
    fingerprint: str,
    device: torch.device,
    replay: Sequence[Mapping[str, Any]] = (),
    injected: InjectedTimes | None = None,
) -> Trainer:
    """The trainer of one rank, at step 0. `replay`: freezing plans to take in place of its own (`Freezer.plans`).
    `injected`: times in place of measured ones."""
    spec, parallelism = task.spec, task.spec.parallelism
    if replay and spec.freezing.method != "Timely":
        raise BadConfiguration(
            f"there are plans to replay, and method {spec.freezing.method} takes none",
            field="spec.freezing.method",
            remedy=f"set it to Timely, or leave {REPLAY_VARIABLE} out",
        )
    freezer = None
    if spec.freezing.method != "None":
        freezer = Freezer(
            spec.freezing,
            stages,
            schedule=parallelism.schedule,
            pipeline=grid.pipeline,
            microbatches=parallelism.microbatches,
            accumulation=spec.accumulation,
            seed=spec.seed,
            warmup_steps=spec.optimizer.warmup_steps,
            pipeline_group=groups.pipeline,
            data_group=groups.data,
            replay=replay,
            injected=injected,
        )
    engine = PipelineEngine(
        stages,
        schedule=parallelism.schedule,
        microbatches=parallelism.microbatches,
        loss=task.loss,
        pipeline_group=groups.pipeline,
        data_group=groups.data,
        device=device,
        accumulation=spec.accumulation,
        freezer=freezer,
        autocast=torch.bfloat16 if spec.precision == "bfloat16" else None,
    )
    weights = {name: weight for stage in stages.values() for name, weight in stage.weights().items()}
    decay = float(spec.optimizer.ema)
    return Trainer(
        task=task,
        training=data.training,
        validation=data.validation,
        engine=engine,
        stages=stages,
        weights=weights,
        optimizer=make_optimizer(spec.optimizer, weights),
        ema=Ema(weights, decay) if decay else None,
        freezing=freezer,
        checkpoints=checkpoints,
        grid=grid,
        groups=groups,
        fingerprint=fingerprint,
    )


def fingerprint_of(task: Task, model: nn.Module) -> str:
    """Tells one architecture from another: task, and names and shapes of all weights."""
    shapes = sorted((name, list(weight.shape)) for name, weight in model.named_parameters())
    return hashlib.sha256(json.dumps([task.spec.task, shapes]).encode()).hexdigest()


def _identity(given: TrainingTask) -> str:
    """What all ranks must have in common."""
    return json.dumps(
        {
            "job": given.job.model_dump(mode="json", exclude={"status"}),
            "data": given.dataset.fingerprint,
            "resume": given.resume_step,
            "attempt": given.attempt,
            "versions": [torch.__version__, diffusers.__version__, transformers.__version__],
        },
        sort_keys=True,
    )


def _everyones(mine: Value, groups: Groups) -> list[Value]:
    """What each rank has, by rank."""
    if groups.control is None:
        return [mine]
    every = [mine] * dist.get_world_size(groups.control)
    dist.all_gather_object(every, mine, group=groups.control)
    return every


def _compare(mine: str, groups: Groups) -> None:
    every = _everyones(mine, groups)
    different = [rank for rank, other in enumerate(every) if other != every[0]]
    if different:
        raise TryAgain(
            f"rank {', '.join(map(str, different))} has another task, checkpoint, or other versions of torch, diffusers or "
            "transformers, than rank 0",
            remedy="start all ranks from one image and one task",
        )
