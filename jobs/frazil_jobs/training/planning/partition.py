"""Which of the model's blocks each stage holds, so that the step is short.

A stage holds neighbouring blocks; the first also what comes before them (embeddings), the last what comes after (final norm,
head, loss). Uniform is the published cut: the same number of blocks each. Balanced makes the slowest stage as fast as can
be, and then moves blocks as long as the simulated step, with the freezing plan that it allows, gets shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import Literal

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning import program, simulator
from frazil_jobs.training.planning.canonical import Canonical
from frazil_jobs.training.planning.program import FreezingSettings
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.timings import Provenance, Seconds, StageTime, Timings

Method = Literal["Uniform", "Balanced"]


class BlockTime(Canonical):
    """Seconds of one microbatch's passes through one block."""

    forward: Seconds
    backward_input: Seconds
    backward_weight: Seconds

    @property
    def total(self) -> float:
        """Forward and full backward."""
        return self.forward + self.backward_input + self.backward_weight


NO_TIME = BlockTime(forward=0.0, backward_input=0.0, backward_weight=0.0)


class ModelTime(Canonical):
    """Seconds of a model, part by part, for one microbatch."""

    blocks: tuple[BlockTime, ...]
    before: BlockTime = NO_TIME
    """What the first stage does before its blocks."""
    after: BlockTime = NO_TIME
    """What the last stage does after its blocks."""
    provenance: Provenance = "estimated"
    hop_seconds: Seconds = 0.0

    @property
    def totals(self) -> tuple[float, ...]:
        """Seconds of each block, with what comes before counted to the first and what comes after to the last."""
        totals = [block.total for block in self.blocks]
        totals[0] += self.before.total - self._unneeded
        totals[-1] += self.after.total
        return tuple(totals)

    def stage_times(self, cut: Cut) -> tuple[StageTime, ...]:
        """What the stages of a cut take."""
        return tuple(self._stage_time(cut, stage) for stage in range(cut.stages))

    def timings(self, cut: Cut, order: ScheduleOrder) -> Timings:
        """Timings of an order with the stages of a cut."""
        return Timings.of_stages(
            self.stage_times(cut), order.order, provenance=self.provenance, hop_seconds=self.hop_seconds
        )

    @property
    def _unneeded(self) -> float:
        """Seconds of the one dX that nobody needs: that of the very first weights."""
        return (self.before if self.before.total else self.blocks[0]).backward_input

    def _stage_time(self, cut: Cut, stage: int) -> StageTime:
        first, last = stage == 0, stage == cut.stages - 1
        parts = (
            *([self.before] if first else []),
            *self.blocks[cut.bounds[stage] : cut.bounds[stage + 1]],
            *([self.after] if last else []),
        )
        inputs = sum(part.backward_input for part in parts) - (self._unneeded if first else 0.0)
        return StageTime(
            forward=sum(part.forward for part in parts),
            backward=inputs + sum(part.backward_weight for part in parts),
            backward_frozen=0.0 if first else inputs,
        )


@dataclass(frozen=True)
class Cut:
    """Stage s holds the blocks from bounds[s] up to bounds[s + 1]."""

    bounds: tuple[int, ...]

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.bounds) - 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Blocks of each stage."""
        return tuple(right - left for left, right in pairwise(self.bounds))


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
