"""Which of the model's blocks each stage holds, so that the step is short.

A stage holds neighbouring blocks; the first also what comes before them (embeddings), the last what comes after (final norm,
head, loss). Uniform is the published cut: the same number of blocks each. Balanced makes the slowest stage as fast as can
be, and then moves blocks as long as the simulated step, with the freezing plan that it allows, gets shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Literal

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning import program, simulator
from frazil_jobs.training.planning.models import Cut, ModelTime
from frazil_jobs.training.planning.program import FreezingSettings
from frazil_jobs.training.planning.schedules import ScheduleOrder

Method = Literal["Uniform", "Balanced"]


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
    if method == "Uniform":
        return uniform(len(model.blocks), order.stages)
    starts = {uniform(len(model.blocks), order.stages), least_slowest(model.totals, order.stages)}

    @cache
    def unfrozen(candidate: Cut) -> float:
        return simulator.simulate(order, model.timings(candidate, order)).makespan

    @cache
    def planned(candidate: Cut) -> float:
        if freezing is None:
            return unfrozen(candidate)
        return program.solve(order, model.timings(candidate, order), freezing).makespan

    # Simulating is a hundred times cheaper than planning: descend without freezing first.
    found = min((_descend(start, unfrozen) for start in sorted(starts, key=lambda start: start.bounds)), key=planned)
    return found if freezing is None else _descend(found, planned)


def _descend(start: Cut, makespan: Callable[[Cut], float]) -> Cut:
    """Move one block over one boundary at a time, to the best neighbour, until none is better."""
    best = start
    while True:
        nearer = min(_neighbours(best), key=lambda candidate: (makespan(candidate), candidate.bounds), default=best)
        if makespan(nearer) >= makespan(best) * (1 - 1e-9):
            return best
        best = nearer


def _neighbours(of: Cut) -> Iterator[Cut]:
    """Cuts with one block moved, or one block moved on from each of a run of stages."""
    for first in range(1, of.stages):
        for last in range(first, of.stages):
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
