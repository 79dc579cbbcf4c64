"""Mode Guided: guidance is always kept, and an error budget decides step by step what is forecast and what is computed.

Two policies. `ReusePolicy`: each rank stays on its own branch, and between whole steps its core is left out and its
features forecast. `StagedPolicy`: ranks are stages; where they hold one branch only, the difference of the branches is
carried from the whole steps.

Both guess what a step will miss from how the guided prediction changes, and measure what it did miss at the next whole
step: an approximated prediction less the polynomial through the whole ones on both sides of it. What was measured over
what was guessed corrects the next guess, image by image, so that no constant depends on the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

import torch

from frazil_jobs.generation.modes.budget import Ledger
from frazil_jobs.generation.modes.forecast import History, combined, difference_weights, reach
from frazil_jobs.generation.modes.policy import Kind, rms

FIRST_GUESS: Final = 1.0
"""Measured over guessed error, before anything was measured."""
MOST_LEARNED: Final = 2.0
"""The factor by which one run may move that ratio, up or down."""
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
        """What guidance makes of (branches, images, …): (images, …), or of more than two branches their sums scaled.

        At least in single precision: errors are differences of these.
        """
        predictions = predictions.to(torch.promote_types(predictions.dtype, torch.float32))
        if len(predictions) == 1:
            return predictions[0]
        if self.conditional is None or len(predictions) > 2:
            return predictions.sum(0) * self.scale
        prompt, other = predictions[self.conditional], predictions[1 - self.conditional]
        return other + self.scale * (prompt - other)


@dataclass(frozen=True)
class _Guessed:
    """An approximated step."""

    step: int
    prediction: torch.Tensor
    """Guided: (images, …)."""
    errors: Sequence[float]
    """Root mean square error that was guessed for each image's."""


@dataclass
class _Policy:
    """What both have in common: the step, the ledger, the whole steps so far and the approximated ones after them."""

    independent: ClassVar[bool]
    """See `Ledger`."""
    safety: ClassVar[float]
    """What comes true over what is measured here, chosen on pictures of the shapes transformer; `frazil bench budget` checks
    it on others."""

    terms: Terms
    ledger: Ledger = field(init=False)
    step: int = field(default=0, init=False)
    kind: Kind = field(default=Kind.WHOLE, init=False)
    _ratios: list[float] = field(default_factory=list, init=False)
    _errors: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.terms.allowed / self.safety, independent=self.independent)
        self.forget()

    def forget(self) -> None:
        """Begin again with whole steps."""
        self.kind = Kind.WHOLE
        self._whole = History(self.terms.order + 2)
        self._run: list[_Guessed] = []

    @property
    def learning(self) -> bool:
        """Unless the budget allows nothing."""
        return self.terms.allowed > 0

    def _take_in(self, guided: torch.Tensor) -> None:
        """Measure at a whole step, charge an approximated one."""
        if self.kind is Kind.WHOLE:
            self._whole.keep(self.step, (guided,))
            if self._run:
                self._measure()
            self._run = []
            return
        self._run.append(_Guessed(self.step, guided, self._errors))
        self.ledger.charge([error * self.terms.sensitivities[self.step] for error in self._errors])

    def _measure(self) -> None:
        """What the run that is over missed."""
        missed = [guess.prediction - self._whole.forecast(guess.step)[0] for guess in self._run]
        self.ledger.settle(combined(missed, [self.terms.sensitivities[guess.step] for guess in self._run]))
        measured = torch.stack([rms(error).square() for error in missed]).sum(0).sqrt().tolist()
        guessed = [math.hypot(*errors) for errors in zip(*(guess.errors for guess in self._run), strict=True)]
        before = self._ratios or [FIRST_GUESS] * len(measured)
        self._ratios = [
            ratio * _moved(found, expected) for ratio, found, expected in zip(before, measured, guessed, strict=True)
        ]

    def _advance(self, approximate: Kind) -> None:
        """Decide the step that comes next."""
        self.step += 1
        self.kind = Kind.WHOLE
        terms = self.terms
        if terms.allowed <= 0 or self.step >= terms.steps or not self._whole.entries:
            return
        age = self._whole.age(self.step)
        changes = self._change(self.step)
        if age >= terms.refresh_every or not changes:
            return
        ratios = self._ratios or [FIRST_GUESS] * len(changes)
        self._errors = [ratio * change for ratio, change in zip(ratios, changes, strict=True)]
        wanted = [error * terms.sensitivities[self.step] for error in self._errors]
        if self.ledger.affords(wanted, share=(age + 1) / (terms.steps - self.step + age)):
            self.kind = approximate

    def _change(self, step: int) -> list[float]:
        """What the error of each image's guided prediction at `step` is in proportion to; empty while nothing is known."""
        raise NotImplementedError


def _moved(found: float, guessed: float) -> float:
    """What a ratio is multiplied with: half of the way to what was found, on a scale of factors."""
    wanted = math.sqrt(found / guessed) if guessed > 0 else 1.0
    return min(max(wanted, 1 / MOST_LEARNED), MOST_LEARNED)


class ReusePolicy(_Policy):
    """Whole and reusing steps."""

    independent = True
    safety = 0.4

    def observe(self, predictions: torch.Tensor) -> None:
        """Learn from a whole step; pay for a reusing one."""
        if self.learning:
            self._take_in(self.terms.guided(predictions))
        self._advance(Kind.REUSED)

    def from_stages(self, prediction: torch.Tensor) -> torch.Tensor:
        """Never asked."""
        raise RuntimeError("no step is staged")

    def _change(self, step: int) -> list[float]:
        """What a forecast of the prediction would miss: the next divided difference times the distances to the nodes."""
        nodes = self._whole.steps
        if len(nodes) < self.terms.order + 2:
            return []
        difference = combined([entry.tensors[0] for entry in self._whole.entries], difference_weights(nodes))
        far = reach(nodes[1:], step)
        return [far * size for size in rms(difference).tolist()]


@dataclass
class StagedPolicy(_Policy):
    """Whole and staged steps. `staleness`: age of the oldest latent in a staged prediction; `live`: both branches staged."""

    independent = False
    safety = 0.2

    staleness: int = 1
    live: bool = False

    def forget(self) -> None:
        """Begin again with whole steps."""
        super().forget()
        self._recent = History(2)
        self._difference = History(min(self.terms.order, 1) + 1)
        self._lost: list[float] = []

    def observe(self, predictions: torch.Tensor) -> None:
        """Learn from every step how fast predictions change, and from a whole one how fast the branches' difference does."""
        guided = self.terms.guided(predictions)
        self._recent.keep(self.step, (guided,))
        if self.kind is Kind.WHOLE and not self.live:
            self._keep_difference(predictions)
        if self.learning:
            self._take_in(guided)
        self._advance(Kind.STAGED)

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
            self._lost = [value / (self.step - last.step) for value in rms(now - last.tensors[0]).tolist()]
        self._difference.keep(self.step, (now,))

    def _change(self, step: int) -> list[float]:
        """What the prediction changes in as many steps as its oldest part is old; and what the carried difference misses."""
        if len(self._recent.entries) < 2:
            return []
        before, now = (entry.tensors[0] for entry in self._recent.entries)
        stale = [self.staleness * size for size in rms(now - before).tolist()]
        if self.live:
            return stale
        if not self._lost:
            return []
        missed = abs(self.terms.scale - 1) * self._difference.age(step)
        return [error + missed * change for error, change in zip(stale, self._lost, strict=True)]
