"""What the trainer asks of a pipeline engine and of freezing: the interfaces that `pipeline.engine` and `freezing` keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

Loss = Callable[[Any, torch.Tensor], torch.Tensor]


class StepReport(Protocol):
    """What an optimizer step was like. The same on every rank."""

    @property
    def phase(self) -> str:
        """Of freezing."""

    @property
    def freeze_ratios(self) -> Mapping[int, float]:
        """By stage."""

    @property
    def mean_freeze_ratio(self) -> float:
        """Over all stages."""

    @property
    def predicted_seconds(self) -> float | None:
        """Of one pipeline batch, by the plan in force."""


class Engine(Protocol):
    """This rank's stages under a schedule (see frazil_jobs.training.pipeline.engine)."""

    def begin_step(self, step: int) -> None:
        """Begin an optimizer step."""

    def train_batch(
        self, inputs: tuple[torch.Tensor, ...], target: torch.Tensor | None, *, kwargs: Mapping[str, Any] | None = None
    ) -> torch.Tensor | None:
        """Forward and backward of one pipeline batch."""

    def reduce_gradients(self) -> None:
        """Over microbatches, accumulated batches and replicas."""

    def clip_gradients(self, max_norm: float) -> float:
        """The norm before."""

    def end_step(self) -> StepReport:
        """After the optimizer's step."""

    def mean_loss(self) -> float:
        """Since begin_step, over replicas, on every rank."""

    def evaluate_batch(
        self,
        inputs: tuple[torch.Tensor, ...],
        target: torch.Tensor | None,
        *,
        kwargs: Mapping[str, Any] | None = None,
        measure: Loss | None = None,
    ) -> float:
        """A mean over microbatches and replicas, on every rank."""


class Freezing(Protocol):
    """The freezing controller of a rank."""

    @property
    def plans(self) -> list[dict[str, Any]]:
        """Plans made so far."""

    def state_dict(self) -> dict[str, Any]:
        """State between two steps."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""
