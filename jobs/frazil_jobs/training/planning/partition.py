"""Which of the model's blocks each stage holds, so that the step is short.

A stage holds neighbouring blocks; the first also what comes before them (embeddings), the last what comes after (final norm,
head, loss). Uniform is the published cut: the same number of blocks each. Balanced makes the slowest stage as fast as can
be, and then moves blocks as long as the simulated step, with the freezing plan that it allows, gets shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from math import inf
from typing import Final, Literal

import numpy as np

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning import dag, program, simulator
from frazil_jobs.training.planning.actions import Kind
from frazil_jobs.training.planning.models import Cut, ModelTime
from frazil_jobs.training.planning.program import FreezingSettings
from frazil_jobs.training.planning.schedules import ScheduleOrder

Method = Literal["Uniform", "Balanced"]
_PLANS: Final = 64
"""Freezing plans that are made for one cut: each takes some ten milliseconds, of large pipelines a second."""


def uniform(blocks: int, stages: int) -> Cut:
    """The same number of blocks each; where it doesn't divide, the first stages have one more.

    Raises BadConfiguration when there are fewer blocks than stages."""
    _check(blocks, stages)
    each, more = divmod(blocks, stages)
    return Cut(tuple(accumulate((each + (stage < more) for stage in range(stages)), initial=0)))


def least_slowest(totals: Sequence[float], stages: int) -> Cut:
    """The cut whose slowest stage is as fast as can be, exactly; of several such the evenest. `totals`: seconds of blocks.

    Raises BadConfiguration when there are fewer blocks than stages."""
    blocks = len(totals)
    _check(blocks, stages)
    sums = tuple(accumulate(totals, initial=0.0))

    @cache
    def best(first: int, left: int) -> tuple[float, float, tuple[int, ...]]:
        """(slowest, sum of squares, bounds) of the blocks from `first` on in `left` stages. Squares break ties evenly."""
        if left == 1:
            alone = sums[blocks] - sums[first]
            return alone, alone**2, (first, blocks)
        choices = []
        for end in range(first + 1, blocks - left + 2):
            mine = sums[end] - sums[first]
            slowest, squares, bounds = best(end, left - 1)
            choices.append((max(mine, slowest), mine**2 + squares, (first, *bounds)))
        return min(choices)

    return Cut(best(0, stages)[2])


def cut(method: Method, model: ModelTime, order: ScheduleOrder, freezing: FreezingSettings | None = None) -> Cut:
    """The cut of a model for an order. `freezing`: what plans may do; None for no freezing.

    Raises BadConfiguration when there are fewer blocks than stages."""
    blocks = len(model.blocks)
    if method == "Uniform":
        return uniform(blocks, order.stages)
    unfrozen = _Unfrozen(model, order)
    starts = sorted({uniform(blocks, order.stages), least_slowest(model.totals, order.stages)})
    found = [_descend(start, unfrozen, _neighbours) for start in starts]
    if freezing is None:
        return found[int(np.argmin(unfrozen(found)))]
    planned = _Planned(model, order, freezing)
    return _descend(found[int(np.argmin(planned(found)))], planned, _nearest)


class _Unfrozen:
    """Makespans of cuts with nothing frozen, all of them in one pass through the DAG."""

    def __init__(self, model: ModelTime, order: ScheduleOrder) -> None:
        self._model = model
        self._graph = dag.build(order, (model.hop_seconds,) * (order.stages - 1))
        kinds = list(Kind)
        self._kinds = [kinds.index(action.kind) for action in self._graph.actions]
        self._stages = [action.stage for action in self._graph.actions]

    def __call__(self, cuts: Sequence[Cut]) -> list[float]:
        tables = np.array([[[time.of(k).full for time in self._model.stage_times(c)] for k in Kind] for c in cuts])
        seconds = np.ascontiguousarray(tables[:, self._kinds, self._stages].T)
        return [float(end) for end in simulator.run(self._graph, seconds)[1].max(axis=0)]


class _Planned:
    """Makespans of cuts with the plan that each allows; inf once `_PLANS` were made."""

    def __init__(self, model: ModelTime, order: ScheduleOrder, freezing: FreezingSettings) -> None:
        self._model, self._order, self._freezing = model, order, freezing
        self._known: dict[Cut, float] = {}

    def __call__(self, cuts: Sequence[Cut]) -> list[float]:
        return [self._makespan(each) for each in cuts]

    def _makespan(self, of: Cut) -> float:
        if of not in self._known:
            if len(self._known) >= _PLANS:
                return inf
            timings = self._model.timings(of, self._order)
            self._known[of] = program.solve(self._order, timings, self._freezing).makespan
        return self._known[of]


def _descend(
    start: Cut, makespans: Callable[[Sequence[Cut]], list[float]], neighbours: Callable[[Cut], Iterator[Cut]]
) -> Cut:
    """To the best neighbour, again and again, until none is better."""
    best, (least,) = start, makespans([start])
    while nearby := sorted(neighbours(best)):
        found = makespans(nearby)
        if min(found) >= least * (1 - 1e-9):
            break
        best, least = nearby[int(np.argmin(found))], min(found)
    return best


def _nearest(of: Cut) -> Iterator[Cut]:
    """Cuts with one block moved over one boundary."""
    return _moved(of, ((at, at) for at in range(1, of.stages)))


def _neighbours(of: Cut) -> Iterator[Cut]:
    """Cuts with one block moved over each of a run of boundaries."""
    return _moved(of, ((first, last) for first in range(1, of.stages) for last in range(first, of.stages)))


def _moved(of: Cut, runs: Iterable[tuple[int, int]]) -> Iterator[Cut]:
    for first, last in runs:
        for step in (-1, 1):
            bounds = tuple(b + step if first <= at <= last else b for at, b in enumerate(of.bounds))
            if all(left < right for left, right in pairwise(bounds)):
                yield Cut(bounds)


def _check(blocks: int, stages: int) -> None:
    if blocks < stages:
        raise BadConfiguration(
            f"the model has {blocks} blocks, too few for {stages} stages",
            field="spec.parallelism.pipeline",
            remedy=f"lower pipeline, or take a schedule with one stage a rank, so that there are at most {blocks} stages",
        )
