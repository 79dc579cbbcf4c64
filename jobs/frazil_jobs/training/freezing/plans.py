"""What ranks tell each other about freezing, and the log of plans that came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from frazil_jobs.training.freezing.timing import Line
from frazil_jobs.training.planning.program import FreezingPlan
from frazil_jobs.training.planning.timings import Timings


class Reason(StrEnum):
    """Why a plan is in the log."""

    MONITORED = "Monitored"
    """The first one."""
    DRIFTED = "Drifted"
    """The step had drifted from its prediction, and new ratios make it shorter."""
    KEPT = "Kept"
    """It had drifted, but new ratios would gain too little: the old ones go on under a new prediction."""


@dataclass(frozen=True)
class Notes:
    """What one rank tells the others."""

    lines: Mapping[str, Line]
    """Times of its stages (timing.Samples.lines)."""
    span: float | None
    """Median seconds of a pipeline batch on this rank, from its first action's start to its last one's end."""


@dataclass(frozen=True)
class Due:
    """A plan that is due: what to solve, and why."""

    timings: Timings
    reason: Reason
    measured: float | None
    """Seconds of a pipeline batch."""


@dataclass(frozen=True)
class Planned:
    """An entry of the log."""

    step: int
    """First optimizer step that it holds for."""
    reason: Reason
    plan: FreezingPlan
    timings: Timings
    measured: float | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "step": self.step,
            "reason": str(self.reason),
            "plan": json.loads(self.plan.to_json()),
            "timings": json.loads(self.timings.to_json()),
            "measured": self.measured,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse, bit for bit."""
        return cls(
            step=int(entry["step"]),
            reason=Reason(entry["reason"]),
            plan=FreezingPlan.from_json(json.dumps(entry["plan"])),
            timings=Timings.from_json(json.dumps(entry["timings"])),
            measured=entry["measured"],
        )
