"""One rank of `frazil bench training`: it runs a pipeline batch of every row, round by round, through the real engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from frazil_cli.bench_training.emulated import WIDTH, EmulatedStage
from frazil_cli.bench_training.measure import TIMEOUT_SECONDS, Settings
from frazil_cli.bench_training.rows import MICROBATCHES, RANKS, Row, rows_of, scaled_model
from frazil_jobs.base import parent
from frazil_jobs.launching.cpu import use_cores
from frazil_jobs.training.freezing.clock import Timed
from frazil_jobs.training.freezing.freezer import Freezer
from frazil_jobs.training.freezing.plans import Planned, Reason
from frazil_jobs.training.pipeline import PipelineEngine
from frazil_jobs.training.planning.models import ModelTime


def main(workdir: Path, rank: int) -> None:
    """Run, and leave every rank's times of every row and round in the folder."""
    parent.die_with_parent()
    use_cores(1)
    settings = Settings.read(workdir)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{workdir}/rendezvous",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )
    group = cast(dist.ProcessGroup, dist.new_group(timeout=timedelta(seconds=TIMEOUT_SECONDS)))
    model = scaled_model(settings.least_ms)
    rows = rows_of(model, settings.schedules, max_ratio=settings.max_ratio)
    devices = [_Device(row, model, rank, group) for row in rows]
    measured: list[list[dict[str, Any]]] = [[] for _ in rows]
    for number in range(settings.rounds + 1):
        for position in range(len(rows)):
            at = (position + number) % len(rows)
            times = devices[at].batch(number)
            if number and rank == 0:  # in the first round torch learns shapes
                measured[at].append(times)
        if rank == 0:
            (workdir / "progress").write_text(f"{number}/{settings.rounds}")
    if rank == 0:
        (workdir / "measured.json").write_text(json.dumps(measured))
    dist.barrier()
    dist.destroy_process_group()


class _Device:
    """What this rank has of a row."""

    def __init__(self, row: Row, model: ModelTime, rank: int, group: dist.ProcessGroup) -> None:
        bounds = row.cut.bounds
        self._group = group
        self._actions = row.order.order[rank]
        self._stages = {
            stage: EmulatedStage(model.blocks[bounds[stage] : bounds[stage + 1]], first=stage == 0)
            for stage in row.order.placement.stages_of(rank)
        }
        self._freezer = Freezer(
            row.freezing,
            self._stages,
            schedule=row.schedule,
            pipeline=RANKS,
            microbatches=MICROBATCHES,
            seed=0,
            warmup_steps=0,
            pipeline_group=group,
            data_group=None,
            replay=[Planned(0, Reason.MONITORED, row.plan, row.timings, None).to_json()],
        )
        self._engine = PipelineEngine(
            self._stages,
            schedule=row.schedule,
            microbatches=MICROBATCHES,
            loss=_loss,
            pipeline_group=group,
            data_group=None,
            freezer=self._freezer,
        )

    def batch(self, number: int) -> dict[str, Any]:
        """One pipeline batch: its seconds over all ranks, what each action took and was told to take, what was frozen."""
        self._engine.begin_step(number)
        told = self._told()
        x = torch.ones(MICROBATCHES, WIDTH)
        dist.barrier(group=self._group)
        self._engine.train_batch((x,), torch.zeros_like(x))
        self._engine.reduce_gradients()
        for parameter in self._engine.parameters():
            parameter.grad = None
        report = self._engine.share(self._engine.end_step())
        return {
            "seconds": _span(report.timed),
            "actions": {str(one.action): one.seconds for one in report.timed},
            "told": told,
            "ratio": report.mean_freeze_ratio,
        }

    def _told(self) -> dict[str, float]:
        """Seconds of every rank's actions, by the tensors drawn."""
        frozen = {stage: self._freezer.selection.frozen(stage, 0) for stage in self._stages}
        mine = {
            str(one): self._stages[one.stage].seconds(one.kind, frozen[one.stage][one.microbatch])
            for one in self._actions
        }
        of_all: list[dict[str, float]] = [{}] * RANKS
        dist.all_gather_object(of_all, mine, group=self._group)
        return {action: seconds for of_rank in of_all for action, seconds in of_rank.items()}


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).square().mean()


def _span(timed: Sequence[Timed]) -> float:
    """From the first start to the last end: all ranks read the same clock of this machine."""
    return max(one.start + one.seconds for one in timed) - min(one.start for one in timed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
