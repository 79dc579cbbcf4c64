"""One rank of `frazil bench convergence`: a trainer a method, all of one seed, which take their steps in turn."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

from frazil_cli import bench_ranks
from frazil_cli.bench_convergence.measure import RANKS
from frazil_cli.bench_convergence.methods import Settings
from frazil_cli.bench_convergence.rows import Run
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base import parent
from frazil_jobs.inputs.dataset_files import DatasetFiles
from frazil_jobs.launching.cpu import use_cores
from frazil_jobs.outputs.spool import Spool
from frazil_jobs.training.checkpointing import Checkpoints
from frazil_jobs.training.data.feed import Data, open_data
from frazil_jobs.training.freezing.plans import Planned, Reason
from frazil_jobs.training.grid import Grid, Groups, join
from frazil_jobs.training.partition import model_time, stage_blocks
from frazil_jobs.training.planning import program
from frazil_jobs.training.planning.models import Cut
from frazil_jobs.training.session import build_stages, make_trainer, order_for
from frazil_jobs.training.tasks import Task, check_stages, open_task
from frazil_jobs.training.trainer import Trainer

TIMEOUT: Final = timedelta(minutes=30)
_CPU: Final = torch.device("cpu")


def main(workdir: Path, rank: int, core: int) -> None:
    """Train, and leave what each method's run was like."""
    parent.die_with_parent()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    use_cores(1)
    asked = json.loads((workdir / "settings.json").read_text())
    tasks = {method: _task(job, asked) for method, job in asked["jobs"].items()}
    data = open_data(
        next(iter(tasks.values())), DatasetFiles.model_validate(asked["dataset"]), scratch=workdir / "data"
    )
    dist.init_process_group(
        "gloo", init_method=f"file://{workdir}/rendezvous", rank=rank, world_size=RANKS, timeout=TIMEOUT
    )
    grid = Grid(pipeline=RANKS, data=1, rank=rank)
    groups = join(grid, timeout=TIMEOUT)
    blocks = stage_blocks(tasks["none"], order_for(tasks["none"]))
    settings = Settings(**asked["settings"])
    trainers = {
        method: _trainer(task, data, grid, groups, blocks, workdir, replay=_replay(method, task, blocks, settings))
        for method, task in tasks.items()
    }
    _take_turns(trainers, lambda text: bench_ranks.note_progress(workdir, rank, text))
    sizes = tuple(len(each) for each in blocks)
    bench_ranks.leave_result(
        workdir, rank, lambda: [_run(method, one, sizes).document() for method, one in trainers.items()]
    )
    dist.barrier()
    dist.destroy_process_group()


def _task(document: Mapping[str, Any], asked: Mapping[str, Any]) -> Task:
    job = TrainingJob.model_validate(document)
    seeded = job.model_copy(update={"spec": job.spec.model_copy(update={"seed": asked["seed"]})})
    task = open_task(seeded, Path(asked["model"]))
    check_stages(task, order_for(task).stages)
    task.to(_CPU)
    return task


def _trainer(
    task: Task,
    data: Data,
    grid: Grid,
    groups: Groups,
    blocks: Sequence[range],
    workdir: Path,
    *,
    replay: Sequence[Mapping[str, Any]],
) -> Trainer:
    """Of one method. It is never asked for a checkpoint."""
    stages, fingerprint = build_stages(task, grid, _CPU, blocks)
    checkpoints = Checkpoints(
        spool=Spool(workdir / "spool"), folder=workdir / "checkpoints", attempt=0, keep=1, group=groups.checkpoint
    )
    return make_trainer(
        task, data, stages, grid, groups,
        checkpoints=checkpoints, fingerprint=fingerprint, device=_CPU, replay=replay,
    )  # fmt: skip


def _replay(method: str, task: Task, blocks: Sequence[range], settings: Settings) -> list[dict[str, Any]]:
    """The plan of uniform, made when ours is; other methods make their own."""
    if method != "uniform":
        return []
    order = order_for(task)
    timings = model_time(task).timings(Cut((0, *(each.stop for each in blocks))), order)
    plan = program.plan_of(order, timings, program.uniform(order, float(settings.max_freeze_ratio)))
    return [Planned(settings.warmup + settings.monitoring, Reason.MONITORED, plan, timings, None).to_json()]


def _take_turns(trainers: Mapping[str, Trainer], tell: Callable[[str], None]) -> None:
    """Every method makes one step in each round, in an order that turns: a slow minute slows all."""
    feeds = {method: iter(trainer.feed()) for method, trainer in trainers.items()}
    methods = list(trainers)
    steps = trainers[methods[0]].spec.steps
    for number in range(steps):
        for position in range(len(methods)):
            method = methods[(position + number) % len(methods)]
            trainers[method].advance(feeds[method])
        losses = {name: one.history.measures[-1].loss for name, one in trainers.items() if one.history.measures}
        shown = "".join(f", {name} {loss:.3f}" for name, loss in losses.items())
        tell(f"step {number + 1} of {steps}{shown}")


def _run(method: str, trainer: Trainer, stages: tuple[int, ...]) -> Run:
    points, spec = trainer.history.points, trainer.spec
    return Run(
        job=trainer.task.job.metadata.name,
        task=spec.task,
        schedule=spec.parallelism.schedule,
        stages=stages,
        method=method,
        seed=spec.seed,
        seconds=tuple(point.seconds for point in points),
        phases=tuple(point.phase for point in points),
        frozen=tuple(point.freeze_ratio for point in points),
        losses=tuple((measure.step, measure.loss) for measure in trainer.history.measures),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
