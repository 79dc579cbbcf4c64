"""When each action of a step starts and ends: the longest path through the DAG, exactly.

A rank does its actions in order and never waits longer than it must, which is what torch's runtime does apart from the
time that sending itself takes from a rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning import dag
from frazil_jobs.training.planning.actions import Action
from frazil_jobs.training.planning.dag import Dag
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.timings import Timings

NOTHING_FROZEN: Final[Mapping[Action, float]] = {}


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


def simulate(order: ScheduleOrder, timings: Timings, ratios: Mapping[Action, float] = NOTHING_FROZEN) -> Timeline:
    """Run a step on paper. `ratios`: freeze ratios of freezable actions, 0 where left out. Raises BadInput for an order that
    can't run, and for timings of another order."""
    graph = dag.build(order, timings.hop_seconds)
    seconds = seconds_of(graph, timings, ratios)
    starts, ends = run(graph, seconds)
    makespan = float(ends.max())
    return Timeline(
        spans={action: Span(float(starts[at]), float(ends[at])) for at, action in enumerate(graph.actions)},
        makespan=makespan,
        critical_path=_critical_path(graph, starts, ends),
        bubble_share=1 - float(seconds.sum()) / (len(order.order) * makespan) if makespan else 0.0,
    )


def seconds_of(graph: Dag, timings: Timings, ratios: Mapping[Action, float] = NOTHING_FROZEN) -> NDArray[np.float64]:
    """Seconds of each action of `graph` at its ratio. Raises BadInput for an action without a time, for a ratio of an action
    that is not there or can't be frozen, and for one outside of 0 to 1."""
    for action, ratio in ratios.items():
        if action not in timings.actions or not action.kind.freezable or not 0 <= ratio <= 1:
            raise BadInput(
                f"freeze ratio {ratio:g} of {action}",
                remedy="give ratios from 0 to 1, of the B and W of this schedule only",
            )
    missing = [action for action in graph.actions if action not in timings.actions]
    if missing:
        raise BadInput(
            f"there is no time for {missing[0]} and {len(missing) - 1} other actions",
            remedy="record the timings with the same schedule, pipeline and microbatches as the job's",
        )
    return np.array([timings.actions[action].at(ratios.get(action, 0.0)) for action in graph.actions])


def run(graph: Dag, seconds: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Starts and ends of all actions. `seconds` has shape (actions,) or (actions, samples); so have the results."""
    starts, ends = np.zeros_like(seconds), np.zeros_like(seconds)
    for at, waits in enumerate(graph.waits):
        for source, late in waits:
            np.maximum(starts[at], ends[source] + late, out=starts[at : at + 1] if seconds.ndim == 1 else starts[at])
        ends[at] = starts[at] + seconds[at]
    return starts, ends


def _critical_path(graph: Dag, starts: NDArray[np.float64], ends: NDArray[np.float64]) -> tuple[Action, ...]:
    at = int(ends.argmax())
    path = [at]
    while starts[at] > 0:
        at = next(source for source, late in graph.waits[at] if ends[source] + late == starts[at])
        path.append(at)
    return tuple(graph.actions[at] for at in reversed(path))
