"""The engine: one rank's stages under one of the five schedules, gradients summed, reduced, rescaled and clipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.training.freezing.freezer import Freezer

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
"""Mean loss of one microbatch, of the last stage's output and the microbatch's part of the target."""


@dataclass(frozen=True)
class StepReport:
    """What an optimizer step was like. The same on every rank."""

    step: int
    phase: str
    """Of the freezing controller: Warmup, Monitoring, Ramp, Stable; Off without freezing."""
    freeze_ratios: Mapping[int, float]
    """Stage to the share of its dW time that was skipped in this step."""
    mean_freeze_ratio: float
    predicted_seconds: float | None
    """Of one pipeline batch, by the plan in force; None before there is one."""


class PipelineEngine:
    """Runs this rank's stages. Every rank of pipeline x data makes one, and calls the same methods in the same order."""

    def __init__(
        self,
        stages: Mapping[int, nn.Module],
        *,
        num_stages: int,
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
        """`stages` maps the index of each stage that this rank holds to its module, already on `device`.

        A module takes the previous stage's output (one tensor or a tuple of them; the first stage the batch's inputs)
        and the keyword arguments of `train_batch`, and registers its parts in the order in which they run. A group is
        None where it would hold this rank alone; groups bring their own time-out. `autocast` is the number type of
        forward and loss (torch.bfloat16), None for that of the weights.
        """
        raise NotImplementedError

    @property
    def holds_first(self) -> bool:
        """Whether this rank's inputs are read."""
        raise NotImplementedError

    @property
    def holds_last(self) -> bool:
        """Whether this rank's targets are read, and its losses known."""
        raise NotImplementedError

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of this rank's stages, each once."""
        raise NotImplementedError

    def begin_step(self, step: int) -> None:
        """Begin optimizer step `step` (from 0): its masks are drawn here. Metrics look at the weights."""
        raise NotImplementedError

    def train_batch(
        self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor, *, kwargs: Mapping[str, Any] | None = None
    ) -> torch.Tensor | None:
        """Forward and backward of one pipeline batch; its gradients are added (as sums over microbatches).

        All tensors have the batch first, a multiple of `microbatches`. `inputs` are read where the first stage is,
        `target` where the last is, `kwargs` by every stage of this rank; elsewhere they may be left empty. Returns the
        mean loss where the last stage is, else None.
        """
        raise NotImplementedError

    def reduce_gradients(self) -> None:
        """Turn sums into the mean over microbatches, accumulated batches and replicas; rescale partial gradients.

        Called once an optimizer step, by all ranks. A tensor frozen in all of the step has gradient None afterwards,
        and takes no part.
        """
        raise NotImplementedError

    def clip_gradients(self, max_norm: float) -> float:
        """Scale gradients so that the norm of the whole model's gradient is at most `max_norm`; 0 only measures.

        Returns the norm before. The same on every rank, each parameter counted once.
        """
        raise NotImplementedError

    def end_step(self) -> StepReport:
        """After optimizer.step(): notes times, and plans when it is time to (then a collective)."""
        raise NotImplementedError

    def mean_loss(self) -> float:
        """Mean loss of the batches since begin_step, over replicas, on every rank. A collective."""
        raise NotImplementedError

    def evaluate_batch(
        self,
        inputs: tuple[torch.Tensor, ...],
        target: torch.Tensor,
        *,
        kwargs: Mapping[str, Any] | None = None,
        measure: Loss | None = None,
    ) -> float:
        """Mean over microbatches and replicas of `measure` (the loss, where left out), without gradients.

        On every rank. Modules are used as they are: put them into eval() before.
        """
        raise NotImplementedError
