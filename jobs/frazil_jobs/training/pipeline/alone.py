"""A pipeline of one stage: the microbatches one after the other, on one rank, without torch's schedules or any group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from frazil_jobs.training.freezing.clock import ActionClock
from frazil_jobs.training.planning.actions import Action, Kind


class OneStage:
    """The whole model on this rank. Activations of one microbatch are kept at a time, whatever the schedule's name."""

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[..., torch.Tensor],
        *,
        clock: ActionClock,
        device: torch.device,
        autocast: torch.dtype | None,
    ) -> None:
        self.module = module
        self._loss = loss
        self._clock = clock
        self._autocast = lambda: torch.autocast(device.type, dtype=autocast) if autocast is not None else nullcontext()

    def train(
        self, inputs: Sequence[tuple[torch.Tensor, ...]], kwargs: Sequence[Mapping[str, Any]], targets: Sequence[Any]
    ) -> list[torch.Tensor]:
        """Forward and backward of each microbatch; their losses."""
        losses = []
        for microbatch, (args, keywords, target) in enumerate(zip(inputs, kwargs, targets, strict=True)):
            with self._clock.timed(Action(Kind.F, 0, microbatch)), self._autocast():
                loss = self._loss(self.module(*args, **keywords), target)
            with self._clock.timed(Action(Kind.B, 0, microbatch)):
                loss.backward()
            losses.append(loss.detach())
        return losses

    @torch.no_grad()
    def evaluate(
        self,
        inputs: Sequence[tuple[torch.Tensor, ...]],
        kwargs: Sequence[Mapping[str, Any]],
        targets: Sequence[Any],
        measure: Callable[..., torch.Tensor] | None,
    ) -> list[torch.Tensor]:
        """What each microbatch measures."""
        with self._autocast():
            return [
                (measure or self._loss)(self.module(*args, **keywords), target)
                for args, keywords, target in zip(inputs, kwargs, targets, strict=True)
            ]
