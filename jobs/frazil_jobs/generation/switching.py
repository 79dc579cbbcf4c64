"""Adaptive parallelism switching as published (Hybridiff, arXiv 2602.21760, section 3.3): where the pipelined window opens.

Pure functions over the discrepancies of the steps so far. M_i = mean|conditional - unconditional| / mean|unconditional|
falls quickly at first; once it still falls, but slowly, the window may open (tau1), at the latest at the cap, and it
closes after a fixed number of steps (tau2). Steps count from 0 in the order in which they run. Two things are ours:
lengths are in percent of the steps, and each image of a batch decides for itself; the batch follows the last of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frazil_jobs.api.parallelism import Switching

LEAST_SLOPE_STEPS = 2
"""Fewer steps have no slope."""


@dataclass(frozen=True, kw_only=True)
class WindowRule:
    """`Switching` at a certain number of steps."""

    steps: int
    length: int
    """Steps of the window: the paper's k."""
    slope_steps: int
    """Steps over which the slope is taken: L."""
    threshold: float
    """Fall a step below which the window opens: g."""
    cap: int
    """The step at which the window opens at the latest: tau_cap."""

    @classmethod
    def of(cls, switching: Switching, *, steps: int) -> WindowRule:
        """The rule for `steps` steps. Raises ValueError, with a clause for people, when they are too few."""
        length = switching.window_percent * steps // 100
        slope_steps = switching.slope_window_percent * steps // 100
        if length < 1:
            raise ValueError(f"{switching.window_percent} % of {steps} steps is less than one step")
        if slope_steps < LEAST_SLOPE_STEPS:
            found = f"{switching.slope_window_percent} % of {steps} steps"
            raise ValueError(f"{found} is less than the {LEAST_SLOPE_STEPS} that a slope needs")
        # The step before the window has to be whole: the stages begin from its boundaries.
        cap = max(1, switching.cap_percent * steps // 100)
        return cls(
            steps=steps,
            length=length,
            slope_steps=slope_steps,
            threshold=float(switching.slope_threshold) / steps,
            cap=min(cap, steps - length),
        )


def slope(discrepancies: Sequence[float], step: int, over: int) -> float:
    """The fall a step over the last `over` steps up to `step`: (M_{i-L} - M_i) / L. NaN before there are as many."""
    if not over <= step < len(discrepancies):
        return math.nan
    return (discrepancies[step - over] - discrepancies[step]) / over


def levels_off(discrepancies: Sequence[float], rule: WindowRule) -> int | None:
    """tau1': the first step at which the discrepancy falls by less than the threshold; None so far.

    A rising curve and one that isn't a number never do.
    """
    for step in range(rule.slope_steps, len(discrepancies)):
        if 0 <= slope(discrepancies, step, rule.slope_steps) < rule.threshold:
            return step
    return None


def opens(discrepancies: Sequence[float], rule: WindowRule) -> int | None:
    """The first step of one image's window: the step after tau1', or the cap if that comes first; None so far."""
    step = levels_off(discrepancies, rule)
    if step is not None and step + 1 < rule.cap:
        return step + 1
    return rule.cap if len(discrepancies) >= rule.cap else None


def closes(first: int, rule: WindowRule) -> int:
    """tau2: the first step after the window."""
    return min(first + rule.length, rule.steps)


def joined(windows: Sequence[int | None]) -> int | None:
    """The first step of the batch's window: that of the last image to be ready; None while one isn't."""
    if any(window is None for window in windows):
        return None
    return max(window for window in windows if window is not None)


@dataclass
class Window:
    """The window of one batch, as it is found while the steps run."""

    rule: WindowRule
    curves: list[list[float]] = field(default_factory=list)
    """Discrepancies so far, by image."""
    first: int | None = None

    def observe(self, discrepancies: Sequence[float]) -> None:
        """Take in the discrepancies of one more whole step, one an image."""
        if self.first is not None:
            return
        if not self.curves:
            self.curves = [[] for _ in discrepancies]
        for curve, value in zip(self.curves, discrepancies, strict=True):
            curve.append(value)
        self.first = joined([opens(curve, self.rule) for curve in self.curves])

    def holds(self, step: int) -> bool:
        """Whether `step` is in the window."""
        return self.first is not None and self.first <= step < closes(self.first, self.rule)
