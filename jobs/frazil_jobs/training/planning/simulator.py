"""When each action of a step starts and ends: the longest path through the DAG, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from frazil_jobs.training.planning.actions import Action
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.timings import Timings


@dataclass(frozen=True)
class Span:
    """When one action runs, in seconds from the start of the step."""

    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """One simulated step."""

    spans: Mapping[Action, Span]
    makespan: float
    """Seconds from the first start to the last end."""
    critical_path: tuple[Action, ...]
    """Actions, first to last, none of which can take longer without the step taking longer."""
    bubble_share: float
    """Part of all ranks' time in which they wait."""


def simulate(order: ScheduleOrder, timings: Timings, ratios: Mapping[Action, float] | None = None) -> Timeline:
    """Run a step on paper. `ratios`: freeze ratio of freezable actions, 0 where left out. Raises BadInput for an order that
    can't run, and for timings of another order."""
    raise NotImplementedError
