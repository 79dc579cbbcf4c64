"""How a batch runs: through torch's schedules over several ranks, or one microbatch after the other on one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

import torch
import torch.distributed as dist
from torch import nn

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.training.freezing.clock import ActionClock
from frazil_jobs.training.freezing.stage import FreezingStage, Frozen, MixedPrecisionStage
from frazil_jobs.training.pipeline.schedules import schedule_of
from frazil_jobs.training.planning.actions import Action, Kind
from frazil_jobs.training.planning.schedules import ScheduleOrder

Loss: TypeAlias = Callable[[Any, torch.Tensor], torch.Tensor]
"""Of one microbatch: the mean over its samples, of the last stage's output and the microbatch's part of the target."""
Inputs: TypeAlias = list[tuple[torch.Tensor, ...]] | None
Keywords: TypeAlias = list[dict[str, Any]]
Targets: TypeAlias = list[torch.Tensor] | None


class Runner(Protocol):
    """Runs the microbatches of a batch. Inputs are None where the first stage isn't, targets where the last isn't."""

    def train(
        self, inputs: Inputs, kwargs: Keywords, targets: Targets, frozen: Mapping[int, Frozen]
    ) -> list[torch.Tensor]:
        """Forward and backward. Losses by microbatch, none where the last stage isn't."""

    def evaluate(self, inputs: Inputs, kwargs: Keywords, targets: Targets, measure: Loss) -> list[torch.Tensor]:
        """Forward alone. What each microbatch measures."""


class Pipeline:
    """Several ranks. Evaluation has stages and a schedule of its own over the same modules: torch would otherwise set up its
    buffers anew, with a forward and a backward, at each change between the two."""

    def __init__(
        self,
        modules: Mapping[int, nn.Module],
        loss: Loss,
        *,
        schedule: Schedule,
        order: ScheduleOrder,
        group: dist.ProcessGroup,
        device: torch.device,
        autocast: torch.dtype | None,
        clock: ActionClock,
    ) -> None:
        self._measure = loss
        count = order.stages
        self._stages = [
            FreezingStage(module, index, count, device=device, group=group, clock=clock, autocast=autocast)
            for index, module in sorted(modules.items())
        ]
        evaluation = [
            MixedPrecisionStage(module, index, count, device=device, group=group, autocast=autocast)
            for index, module in sorted(modules.items())
        ]
        last = next((stage for stage in self._stages if stage.is_last), None)

        def measured(*args: Any) -> torch.Tensor:
            with evaluation[-1].autocast():
                return self._measure(*args)

        def build(stages: Sequence[MixedPrecisionStage], function: Loss) -> Any:
            return schedule_of(schedule, stages, microbatches=order.microbatches, loss=function, order=order.order)

        self._training = build(self._stages, last.loss(loss) if last is not None else loss)
        self._evaluation = build(evaluation, measured)

    def train(
        self, inputs: Inputs, kwargs: Keywords, targets: Targets, frozen: Mapping[int, Frozen]
    ) -> list[torch.Tensor]:
        """Forward and backward in the schedule's order."""
        for stage in self._stages:
            stage.begin_batch(frozen.get(stage.stage_index, ()))
        losses: list[torch.Tensor] = []
        self._training.step(arg_mbs=inputs, kwarg_mbs=kwargs, target_mbs=targets, losses=losses, return_outputs=False)
        return [loss.detach() for loss in losses]

    @torch.no_grad()
    def evaluate(self, inputs: Inputs, kwargs: Keywords, targets: Targets, measure: Loss) -> list[torch.Tensor]:
        """The forwards of the schedule's order."""
        self._measure = measure
        losses: list[torch.Tensor] = []
        self._evaluation.eval(arg_mbs=inputs, kwarg_mbs=kwargs, target_mbs=targets, losses=losses, return_outputs=False)
        return losses


class OneStage:
    """The whole model on one rank, without torch's schedules or any group. Activations of one microbatch are kept at a
    time, whatever the schedule."""

    def __init__(
        self,
        module: nn.Module,
        loss: Loss,
        *,
        clock: ActionClock,
        device: torch.device,
        autocast: torch.dtype | None,
    ) -> None:
        self._module, self._loss, self._clock = module, loss, clock
        self._device, self._dtype = device, autocast

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device.type, dtype=self._dtype) if self._dtype is not None else nullcontext()

    def train(
        self, inputs: Inputs, kwargs: Keywords, targets: Targets, frozen: Mapping[int, Frozen]
    ) -> list[torch.Tensor]:
        """Forward and backward of each microbatch in turn."""
        losses = []
        for microbatch, (args, keywords, target) in enumerate(zip(inputs or (), kwargs, targets or (), strict=True)):
            with self._clock.timed(Action(Kind.F, 0, microbatch)), self._autocast():
                loss = self._loss(self._module(*args, **keywords), target)
            with self._clock.timed(Action(Kind.B, 0, microbatch)):
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return losses

    @torch.no_grad()
    def evaluate(self, inputs: Inputs, kwargs: Keywords, targets: Targets, measure: Loss) -> list[torch.Tensor]:
        """Forward of each microbatch in turn."""
        with self._autocast():
            return [
                measure(self._module(*args, **keywords), target)
                for args, keywords, target in zip(inputs or (), kwargs, targets or (), strict=True)
            ]
