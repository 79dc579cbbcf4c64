"""Mode Guided: guidance is always kept, and an error budget decides step by step what is forecast and what is computed.

Two policies. `ReusePolicy`: each rank stays on its own branch, and between whole steps its core is left out and its
features forecast. `StagedPolicy`: ranks are stages; where they hold one branch only, the difference of the branches is
carried from the whole steps. Both learn how well a forecast does from the guided predictions of the whole steps: the error
of a polynomial through the last of them is the next divided difference times the distances to them. (The features are
forecast, not the prediction, whose freshly computed rest makes its error smaller: the constants below.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from frazil_jobs.generation.modes.budget import SAFETY, Ledger
from frazil_jobs.generation.modes.forecast import History, combined, difference_weights, reach
from frazil_jobs.generation.modes.policy import Kind, rms

REUSE_ERROR: Final = 0.5
"""Error of a reusing step by that of forecasting its whole prediction."""
STALE_ERROR: Final = 0.5
"""Error of a staged step by what the prediction changes in as many steps as the oldest of its parts is old."""
LONGEST_EXTRAPOLATION: Final = 5
"""Steps for which the branches' difference is continued in a straight line; after them it stays."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a job asks of mode Guided, and what is known of a call."""

    order: int
    """Of the forecast."""
    refresh_every: int
    """At most this many steps from a whole step to the next."""
    allowed: float
    """See `budget.latent_error`."""
    sensitivities: Sequence[float]
    """Of each step of the call."""
    scale: float
    """The guidance scale."""
    conditional: int | None
    """Which of two branches is the prompt's; None where that isn't known, or there aren't two."""

    @property
    def steps(self) -> int:
        """Of the call."""
        return len(self.sensitivities)

    def guided(self, predictions: torch.Tensor) -> torch.Tensor:
        """What guidance makes of (branches, images, …): (images, …), or of more than two branches their sums scaled."""
        if len(predictions) == 1:
            return predictions[0]
        if self.conditional is None or len(predictions) > 2:
            return predictions.sum(0) * self.scale
        prompt, other = predictions[self.conditional], predictions[1 - self.conditional]
        return other + self.scale * (prompt - other)


@dataclass
class _Policy:
    """What both have in common: the step, the ledger, the whole steps so far."""

    terms: Terms
    ledger: Ledger = field(init=False)
    step: int = field(default=0, init=False)
    _errors: list[float] = field(default_factory=list, init=False)
    kind: Kind = field(default=Kind.WHOLE, init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.terms.allowed)
        self.forget()

    def forget(self) -> None:
        """Begin again with whole steps."""
        self.kind = Kind.WHOLE

    @property
    def learning(self) -> bool:
        """Unless the budget allows nothing."""
        return self.terms.allowed > 0

    def _advance(self, approximate: Kind, last_whole: int | None) -> None:
        """Decide the step that comes next."""
        if self.kind is not Kind.WHOLE:
            self.ledger.pay(self._errors)
        self.step += 1
        self.kind = Kind.WHOLE
        terms = self.terms
        too_far = last_whole is None or self.step - last_whole >= terms.refresh_every
        if terms.allowed <= 0 or self.step >= terms.steps or too_far:
            return
        self._errors = [error * terms.sensitivities[self.step] * SAFETY for error in self._expected(self.step)]
        if self._errors and self.ledger.affords(self._errors, steps_left=terms.steps - self.step):
            self.kind = approximate

    def _expected(self, step: int) -> list[float]:
        """The root mean square error of each image's guided prediction at `step`; empty while nothing is known of it."""
        raise NotImplementedError


class ReusePolicy(_Policy):
    """Whole and reusing steps."""

    def forget(self) -> None:
        """Begin again with whole steps."""
        super().forget()
        self._whole = History(self.terms.order + 2)

    def observe(self, predictions: torch.Tensor) -> None:
        """Learn from a whole step; pay for a reusing one."""
        if self.kind is Kind.WHOLE and self.terms.allowed > 0:
            self._whole.keep(self.step, (self.terms.guided(predictions),))
        self._advance(Kind.REUSED, self._whole.steps[-1] if self._whole.entries else None)

    def from_stages(self, prediction: torch.Tensor) -> torch.Tensor:
        """Never asked."""
        raise RuntimeError("no step is staged")

    def _expected(self, step: int) -> list[float]:
        nodes = self._whole.steps
        if len(nodes) < self.terms.order + 2:
            return []
        difference = combined([entry.tensors[0] for entry in self._whole.entries], difference_weights(nodes))
        far = reach(nodes[1:], step)
        return [REUSE_ERROR * far * size for size in rms(difference).tolist()]


@dataclass
class StagedPolicy(_Policy):
    """Whole and staged steps. `staleness`: age of the oldest latent in a staged prediction; `live`: both branches staged."""

    staleness: int = 1
    live: bool = False

    def forget(self) -> None:
        """Begin again with whole steps."""
        super().forget()
        self._recent = History(2)
        self._difference = History(min(self.terms.order, 1) + 1)
        self._change: list[float] = []
        self._last_whole: int | None = None

    def observe(self, predictions: torch.Tensor) -> None:
        """Learn from every step how fast predictions change, and from a whole one how fast the branches' difference does."""
        self._recent.keep(self.step, (self.terms.guided(predictions),))
        if self.kind is Kind.WHOLE and not self.live:
            self._keep_difference(predictions)
        if self.kind is Kind.WHOLE:
            self._last_whole = self.step
        self._advance(Kind.STAGED, self._last_whole)

    def from_stages(self, prediction: torch.Tensor) -> torch.Tensor:
        """The prompt's prediction, and the other branch's: less the carried difference."""
        assert self.terms.conditional is not None
        other = prediction - self.carried(self.step)
        return torch.stack([other, prediction] if self.terms.conditional == 1 else [prediction, other])

    def carried(self, step: int) -> torch.Tensor:
        """The branches' difference at `step`, continued from the last whole steps for at most five."""
        last = self._difference.steps[-1]
        return self._difference.forecast(min(step, last + LONGEST_EXTRAPOLATION))[0]

    def _keep_difference(self, predictions: torch.Tensor) -> None:
        assert self.terms.conditional is not None
        now = predictions[self.terms.conditional] - predictions[1 - self.terms.conditional]
        if self._difference.entries:
            last = self._difference.entries[-1]
            self._change = [value / (self.step - last.step) for value in rms(now - last.tensors[0]).tolist()]
        self._difference.keep(self.step, (now,))

    def _expected(self, step: int) -> list[float]:
        if len(self._recent.entries) < 2:
            return []
        before, now = (entry.tensors[0] for entry in self._recent.entries)
        stale = [STALE_ERROR * self.staleness * size for size in rms(now - before).tolist()]
        if self.live:
            return stale
        if not self._change:
            return []
        lost = abs(self.terms.scale - 1) * self._difference.age(step)
        return [error + lost * change for error, change in zip(stale, self._change, strict=True)]
