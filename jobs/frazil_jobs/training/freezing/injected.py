"""Given times in place of measured ones: a run then depends on nothing but its inputs, and can be repeated bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from frazil_jobs.training.planning.actions import Action
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.simulator import simulate
from frazil_jobs.training.planning.timings import Timings


def _steady(step: int) -> float:
    return 1.0


@dataclass(frozen=True)
class InjectedTimes:
    """The times of a machine on paper."""

    timings: Timings
    """Of the run's order, such as those recorded in an earlier run (an entry of `Freezer.plans` holds them)."""
    pace: Callable[[int], float] = _steady
    """Factor on all times, by optimizer step: a machine that gets slower."""

    def seconds(self, step: int, action: Action, frozen: float) -> float:
        """What an action takes with a share of its dW frozen."""
        return self.pace(step) * self.timings.actions[action].at(min(1.0, frozen))

    def span(self, step: int, order: ScheduleOrder, ratios: Mapping[Action, float]) -> float:
        """What a batch takes."""
        return self.pace(step) * simulate(order, self.timings, ratios).makespan
