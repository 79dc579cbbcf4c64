"""The engine: one rank's stages under one of the five schedules, gradients summed, reduced, rescaled and clipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.freezing.clock import ActionClock, Timed
from frazil_jobs.training.freezing.exchange import Groups
from frazil_jobs.training.freezing.freezer import Freezer
from frazil_jobs.training.pipeline import gradients
from frazil_jobs.training.pipeline.batches import parts_of, parts_of_all, parts_of_named
from frazil_jobs.training.pipeline.runners import Loss, OneStage, Pipeline, Runner
from frazil_jobs.training.planning.schedules import ScheduleOrder, order_of

OFF = "Off"


@dataclass(frozen=True)
class StepReport:
    """What an optimizer step was like on this rank; `PipelineEngine.share` makes it that of all ranks."""

    step: int
    phase: str
    """Of the freezing controller: Warmup, Monitoring, Ramp, Stable; Metric where a metric alone freezes; Off without."""
    freeze_ratios: Mapping[int, float]
    """Stage to the share of its dW cost that was skipped in this step."""
    predicted_seconds: float | None
    """Of one pipeline batch, by the plan in force; None before there is one."""
    timed: tuple[Timed, ...]
    """What this rank's stages did, when and for how long, batch by batch."""
    group_ratios: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Stage to the share of dW cost that was skipped in each group of its tensors; only in a report that was shared."""

    @property
    def mean_freeze_ratio(self) -> float:
        """Over the stages in `freeze_ratios`."""
        return sum(self.freeze_ratios.values()) / len(self.freeze_ratios) if self.freeze_ratios else 0.0


class PipelineEngine:
    """Runs this rank's stages. Every rank of pipeline x data makes one, and calls the same methods in the same order.

    A group is None where it would hold this rank alone; groups bring their own time-outs, and everything that ranks tell
    each other goes over them.
    """

    def __init__(
        self,
        stages: Mapping[int, nn.Module],
        *,
        schedule: Schedule,
        microbatches: int,
        loss: Loss,
        pipeline_group: dist.ProcessGroup | None,
        data_group: dist.ProcessGroup | None,
        device: torch.device | str = "cpu",
        accumulation: int = 1,
        freezer: Freezer | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        """`stages` maps the index of each stage that this rank holds (`order_of(...).placement`) to its module, on `device`.

        A module takes the previous stage's output (one tensor or a tuple of them; the first stage the batch's inputs)
        and the keyword arguments of `train_batch`, and registers its parts in the order in which they run. `accumulation`
        counts the calls of `train_batch` an optimizer step. `autocast` is the number type of forward and loss
        (torch.bfloat16), None for that of the weights. Raises BadConfiguration where the stages are not this rank's.
        """
        self._device = torch.device(device)
        self._pipeline, self._data = pipeline_group, data_group
        self._microbatches, self._accumulation = microbatches, accumulation
        self._loss, self._freezer = loss, freezer
        self._clock = ActionClock(self._device)
        ranks = dist.get_world_size(pipeline_group) if pipeline_group is not None else 1
        self._order = order_of(schedule, ranks=ranks, microbatches=microbatches)
        self._modules = dict(sorted(stages.items()))
        self._check_placement()
        self._parameters = list(
            {id(one): one for module in self._modules.values() for one in module.parameters()}.values()
        )
        self._runner = self._make_runner(schedule, autocast)
        self._step, self._batch = 0, 0
        self._losses: list[torch.Tensor] = []

    @property
    def order(self) -> ScheduleOrder:
        """What every rank does, and which stages it holds."""
        return self._order

    @property
    def holds_first(self) -> bool:
        """Whether this rank's inputs are read."""
        return 0 in self._modules

    @property
    def holds_last(self) -> bool:
        """Whether this rank's targets are read, and its losses known."""
        return self._order.stages - 1 in self._modules

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of this rank's stages, each once."""
        return iter(self._parameters)

    def begin_step(self, step: int) -> None:
        """Begin optimizer step `step` (from 0), on all ranks: masks are drawn, metrics look at the weights."""
        self._step, self._batch = step, 0
        self._losses.clear()
        if self._freezer is not None:
            self._freezer.begin_step(step)

    def train_batch(
        self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor | None, *, kwargs: Mapping[str, Any] | None = None
    ) -> torch.Tensor | None:
        """Forward and backward of one pipeline batch; its gradients are added, as sums over microbatches.

        All tensors have the batch first, a multiple of `microbatches`. `inputs` are read where the first stage is,
        `target` where the last is, `kwargs` by every stage of this rank; elsewhere they may be (), None and None. Returns
        the mean loss where the last stage is, else None.
        """
        if self._batch == self._accumulation:
            raise RuntimeError(f"train_batch was called more than {self._accumulation} times since begin_step")
        self._clock.begin_batch()
        frozen = {
            stage: self._freezer.selection.frozen(stage, self._batch) if self._freezer is not None else ()
            for stage in self._modules
        }
        losses = self._runner.train(*self._cut(inputs, target, kwargs), frozen)
        self._batch += 1
        if not self.holds_last:
            return None
        self._losses.append(torch.stack(losses).double().mean())
        return self._losses[-1]

    def reduce_gradients(self) -> None:
        """Turn sums into the mean over microbatches, accumulated batches and replicas; rescale partial gradients.

        Called once an optimizer step, by all ranks. A tensor that was frozen in all of the step has gradient None
        afterwards, and takes no part in the reduction.
        """
        replicas = dist.get_world_size(self._data) if self._data is not None else 1
        everything = self._microbatches * self._accumulation
        kept = dict.fromkeys(self._parameters, everything)
        if self._freezer is not None:
            kept |= self._freezer.selection.kept()
        for parameter, microbatches in kept.items():
            if microbatches == 0:
                parameter.grad = None
        gradients.reduce_sums(self._parameters, self._data)
        rescales = self._freezer is not None and self._freezer.rescales
        gradients.divide({one: replicas * (kept[one] if rescales else everything) for one in self._parameters})
        if self._freezer is not None:
            self._freezer.selection.note_gradients(self._step)

    def clip_gradients(self, max_norm: float) -> float:
        """Scale gradients so that the norm of the whole model's gradient is at most `max_norm`; 0 only measures.

        Returns the norm before. The same on every rank, each parameter counted once.
        """
        return gradients.clip(self._parameters, max_norm, self._pipeline)

    def end_step(self) -> StepReport:
        """After optimizer.step(): notes times, and plans when it is time to (then a collective)."""
        timed = self._clock.collect()
        if self._freezer is None:
            return StepReport(self._step, OFF, dict.fromkeys(self._modules, 0.0), None, tuple(timed))
        phase = self._freezer.phase(self._step)
        report = StepReport(
            step=self._step,
            phase=str(phase) if phase is not None else "Metric",
            freeze_ratios=self._freezer.selection.stage_shares(),
            predicted_seconds=self._freezer.predicted(self._step),
            timed=tuple(timed),
        )
        self._freezer.end_step(self._step, timed)
        return report

    def share(self, report: StepReport) -> StepReport:
        """The report with the stages, tensor groups and times of all ranks of the pipeline, the same on each. A collective.

        Of the step that has just ended: what it froze of each group is worked out here alone, since few steps are shared.
        """
        if self._freezer is not None:
            report = replace(report, group_ratios=self._freezer.selection.group_shares())
        if self._pipeline is None:
            return report
        parts = Groups(self._pipeline, None).gather(report)
        return replace(
            report,
            freeze_ratios={stage: ratio for part in parts for stage, ratio in part.freeze_ratios.items()},
            timed=tuple(one for part in parts for one in part.timed),
            group_ratios={stage: ratios for part in parts for stage, ratios in part.group_ratios.items()},
        )

    def mean_loss(self) -> float:
        """Mean loss of the batches since begin_step, over replicas, on every rank. A collective."""
        return self._everywhere(self._losses)

    def evaluate_batch(
        self,
        inputs: tuple[torch.Tensor, ...],
        target: torch.Tensor | None,
        *,
        kwargs: Mapping[str, Any] | None = None,
        measure: Loss | None = None,
    ) -> float:
        """Mean over microbatches and replicas of `measure` (left out: of the loss), without gradients.

        On every rank. Modules are used as they are: put them into eval() before.
        """
        measured = self._runner.evaluate(*self._cut(inputs, target, kwargs), measure or self._loss)
        return self._everywhere(measured)

    def _cut(
        self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor | None, kwargs: Mapping[str, Any] | None
    ) -> tuple[Any, Any, Any]:
        count = self._microbatches
        return (
            parts_of_all(inputs, count) if self.holds_first else None,
            parts_of_named(kwargs, count),
            parts_of(target, count, "target") if self.holds_last and target is not None else None,
        )

    def _everywhere(self, values: list[torch.Tensor]) -> float:
        """Mean of the values that ranks with the last stage have."""
        sums = torch.zeros(2, dtype=torch.float64, device=self._device)
        if self.holds_last and values:
            sums[0], sums[1] = torch.stack([value.double() for value in values]).sum(), len(values)
        for group in (self._pipeline, self._data):
            if group is not None:
                dist.all_reduce(sums, group=group)
        return float(sums[0] / sums[1])

    def _check_placement(self) -> None:
        rank = dist.get_rank(self._pipeline) if self._pipeline is not None else 0
        wanted = self._order.placement.stages_of(rank)
        if tuple(self._modules) != wanted:
            raise BadConfiguration(
                f"pipeline rank {rank} was given stages {tuple(self._modules)}, and the schedule has it hold {wanted}",
                field="spec.parallelism.schedule",
                remedy="cut the model into as many stages as order_of(...).placement has",
            )

    def _make_runner(self, schedule: Schedule, autocast: torch.dtype | None) -> Runner:
        if self._pipeline is None:
            if self._freezer is not None:
                raise BadConfiguration(
                    "freezing needs at least two pipeline ranks", field="spec.freezing.method", remedy="set it to None"
                )
            return OneStage(self._modules[0], self._loss, clock=self._clock, device=self._device, autocast=autocast)
        return Pipeline(
            self._modules,
            self._loss,
            schedule=schedule,
            order=self._order,
            group=self._pipeline,
            device=self._device,
            autocast=autocast,
            clock=self._clock,
        )
