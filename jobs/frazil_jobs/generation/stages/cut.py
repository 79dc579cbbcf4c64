"""Cutting a denoiser into stages so that the largest is as small as can be. Pure: costs in, owners out.

A chain is cut into runs of blocks. A nest is cut in two: the inner stage (0) is a run out of the middle with skips of its
own, the outer stage (1) is the rest, which begins and ends the evaluation. What goes from one stage to another is what
the last unit before each border returned, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from frazil_jobs.generation.stages.units import Anatomy, Uncuttable

REST: Final = 0.35
"""Of a U-Net's cost, in a step that reuses: about what the first and last of six blocks cost. A larger core is faster and
further from exact; those from 0.07 to 0.53 of the small U-Net lie on about one frontier, this one in its middle."""


@dataclass(frozen=True)
class Boundary:
    """The output of unit `after` goes from stage `source` to stage `target`."""

    after: int
    source: int
    target: int


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Which stage owns each unit. The last stage makes the prediction."""

    owners: tuple[int, ...]
    count: int

    def own(self, stage: int) -> frozenset[int]:
        """The units of a stage."""
        return frozenset(unit for unit, owner in enumerate(self.owners) if owner == stage)

    @property
    def boundaries(self) -> tuple[Boundary, ...]:
        """All of them, in the order of the units."""
        return tuple(
            Boundary(after, source, target)
            for after, (source, target) in enumerate(pairwise(self.owners))
            if source != target
        )

    def into(self, stage: int) -> tuple[Boundary, ...]:
        """The boundaries that a stage needs."""
        return tuple(boundary for boundary in self.boundaries if boundary.target == stage)

    def out_of(self, stage: int) -> tuple[Boundary, ...]:
        """The boundaries that a stage makes."""
        return tuple(boundary for boundary in self.boundaries if boundary.source == stage)

    @property
    def staleness(self) -> int:
        """How many steps old the oldest latent is that gets into a prediction, when each boundary is one step old."""
        return len(self.boundaries)

    def share(self, costs: Sequence[float]) -> float:
        """The largest stage's part of the whole cost."""
        sums = [sum(costs[unit] for unit in self.own(stage)) for stage in range(self.count)]
        return max(sums) / (sum(sums) or 1.0)


def cut(anatomy: Anatomy, costs: Sequence[float], stages: int) -> Stages:
    """The cut into `stages` whose largest stage costs least; of equal ones the first. Raises Uncuttable."""
    if len(costs) != len(anatomy):
        raise ValueError(f"{len(costs)} costs for {len(anatomy)} units")
    check_stages(anatomy, stages)
    if anatomy.nested:
        inner = _inner_of(anatomy, costs)
        return Stages(owners=tuple(0 if unit in inner else 1 for unit in range(len(anatomy))), count=2)
    starts = _starts(list(costs), stages)
    owners = [sum(unit >= start for start in starts[1:]) for unit in range(len(anatomy))]
    return Stages(owners=tuple(owners), count=stages)


def most_stages(anatomy: Anatomy) -> int:
    """Into how many stages a denoiser can be cut."""
    return 2 if anatomy.nested else len(anatomy)


def check_stages(anatomy: Anatomy, stages: int) -> None:
    """Raise Uncuttable where there can't be as many stages."""
    if anatomy.nested and stages != 2:
        raise Uncuttable(f"a U-Net is cut into an inner and an outer stage, not into {stages}")
    if stages > most_stages(anatomy):
        raise Uncuttable(f"{len(anatomy)} blocks can't be cut into {stages} stages")


def core_of(anatomy: Anatomy, costs: Sequence[float]) -> range:
    """The run of units that is left out when features are reused: all blocks of a chain but the first and the last; of a
    nest the smallest that leaves at most `REST` of the cost to a reusing step, or the largest that there is.
    """
    if not anatomy.nested:
        return range(1, len(anatomy) - 1)
    most = (1 - REST) * sum(costs)
    return next((nest for nest in reversed(anatomy.nests) if _inside(nest, costs) >= most), anatomy.nests[0])


def _inner_of(anatomy: Anatomy, costs: Sequence[float]) -> range:
    """The nest that is as near to half of the cost as there is one."""
    whole = sum(costs)
    return min(anatomy.nests, key=lambda nest: max(_inside(nest, costs), whole - _inside(nest, costs)))


def _inside(nest: range, costs: Sequence[float]) -> float:
    return sum(costs[unit] for unit in nest)


def _starts(costs: list[float], parts: int) -> list[int]:
    """First unit of each of `parts` runs, none empty, with the least largest sum (dynamic programming)."""
    ends = len(costs)
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    best: list[list[tuple[float, list[int]]]] = [[(sums[end], [0]) for end in range(ends + 1)]]
    for part in range(1, parts):
        row: list[tuple[float, list[int]]] = [(float("inf"), [])] * (ends + 1)
        for end in range(part + 1, ends + 1):
            options = (
                (max(best[-1][start][0], sums[end] - sums[start]), [*best[-1][start][1], start])
                for start in range(part, end)
            )
            row[end] = min(options, key=lambda option: option[0])
        best.append(row)
    return best[-1][ends][1]
