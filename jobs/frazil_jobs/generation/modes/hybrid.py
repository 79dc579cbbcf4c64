"""Mode Hybrid: condition partitioning, and a window of stale stages in which guidance is off (Hybridiff, arXiv 2602.21760).

In the window both stages evaluate the prompt's branch and its prediction stands for both branches, so that the guided
prediction is that branch's, whatever the guidance scale. As the paper means it and as its release does not do: the
boundary is transferred between the stages, the window begins from the boundary of the last whole step (no step of full
price in it), and the cap opens it too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from frazil_jobs.generation.modes.policy import Kind, per_image
from frazil_jobs.generation.switching import Window, WindowRule

TINY = 1e-12
"""Added to the denominator of the discrepancy, as published."""


def discrepancies(predictions: torch.Tensor, *, conditional: int) -> list[float]:
    """mean|conditional - unconditional| / mean|unconditional| of each image; `predictions` is (2, images, …)."""
    prompt, other = predictions[conditional], predictions[1 - conditional]
    values = per_image((prompt.double() - other.double()).abs()) / (per_image(other.double().abs()) + TINY)
    return [float(value) for value in values.tolist()]


@dataclass
class HybridPolicy:
    """One window, placed online."""

    rule: WindowRule
    conditional: int
    """Which of the two branches is the prompt's."""
    _window: Window = field(init=False)
    _step: int = 0

    def __post_init__(self) -> None:
        self._window = Window(self.rule)

    @property
    def kind(self) -> Kind:
        """STAGED inside of the window."""
        return Kind.STAGED if self._window.holds(self._step) else Kind.WHOLE

    @property
    def learning(self) -> bool:
        """Until the window is over."""
        return self._window.first is None or self._step <= self._window.first

    @property
    def first(self) -> int | None:
        """The window's first step, once it is known."""
        return self._window.first

    def observe(self, predictions: torch.Tensor) -> None:
        """Before the window: one more value of the discrepancy."""
        if self._window.first is None:
            self._window.observe(discrepancies(predictions, conditional=self.conditional))
        self._step += 1

    def from_stages(self, prediction: torch.Tensor) -> torch.Tensor:
        """The prompt's prediction for both branches: guidance is off."""
        return torch.stack([prediction, prediction])

    def forget(self) -> None:
        """The stages begin from the whole step before the window: without it there's no window."""
        if self.kind is Kind.STAGED:
            self._window.first = -self.rule.steps
