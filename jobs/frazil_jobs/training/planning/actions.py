"""The work of a pipeline: one action is one kind of pass of one microbatch through one stage.

The text of an action is that of torch's schedules: `0F1` is the forward of microbatch 1 through stage 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from frazil_jobs.base.exits import BadInput


class Kind(StrEnum):
    """What an action computes. A full backward B is I and W in one."""

    F = "F"
    """Forward."""
    B = "B"
    """Full backward: gradients of input and weights. Freezing skips the weights' part."""
    I = "I"  # noqa: E741 - torch's letter
    """Backward of the input alone (dX)."""
    W = "W"
    """Backward of the weights alone (dW)."""

    @property
    def freezable(self) -> bool:
        """Whether freezing parameters shortens it."""
        return self in (Kind.B, Kind.W)


_TEXT: Final = re.compile(r"([0-9]+)([FBIW])([0-9]+)")


@dataclass(frozen=True, order=True)
class Action:
    """One pass of one microbatch through one stage; stages and microbatches count from 0."""

    kind: Kind
    stage: int
    microbatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.microbatch}"

    @classmethod
    def parse(cls, text: str) -> Action:
        """The inverse of `str`. Raises BadInput for anything else, torch's communication actions included."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise BadInput(
                f"{text!r} is no action", remedy="write stage, kind (F, B, I or W) and microbatch, such as 0F1"
            )
        return cls(Kind(match[2]), int(match[1]), int(match[3]))


Order: TypeAlias = tuple[tuple[Action, ...], ...]
"""What each rank does, one after the other: a sequence a rank."""


@dataclass(frozen=True)
class Placement:
    """Which rank holds which stage."""

    ranks_of_stages: tuple[int, ...]
    """The rank of stage 0, of stage 1, and so on."""

    @property
    def stages(self) -> int:
        """How many there are."""
        return len(self.ranks_of_stages)

    @property
    def ranks(self) -> int:
        """How many there are."""
        return max(self.ranks_of_stages) + 1

    def rank_of(self, stage: int) -> int:
        """The rank that holds `stage`."""
        return self.ranks_of_stages[stage]

    def stages_of(self, rank: int) -> tuple[int, ...]:
        """The stages that `rank` holds, ascending: the order in which torch's schedules take them."""
        return tuple(stage for stage, holder in enumerate(self.ranks_of_stages) if holder == rank)

    def crosses_ranks(self, stage: int) -> bool:
        """Whether `stage` and the one after it are held by different ranks, so that tensors travel."""
        return self.ranks_of_stages[stage] != self.ranks_of_stages[stage + 1]

    @classmethod
    def loop(cls, ranks: int, stages: int) -> Placement:
        """Stage s on rank s mod ranks (one stage a rank, and interleaved schedules)."""
        return cls(tuple(stage % ranks for stage in range(stages)))

    @classmethod
    def v(cls, ranks: int) -> Placement:
        """Stages r and 2·ranks - 1 - r on rank r: down and up again (ZBV)."""
        return cls((*range(ranks), *reversed(range(ranks))))


def text_of(order: Order) -> str:
    """The order as torch's CSV (`compute_only`): a line a rank."""
    return "".join(",".join(map(str, actions)) + "\n" for actions in order)


def parse_order(text: str) -> Order:
    """The inverse of `text_of`. Empty cells are idle slots and are left out. Raises BadInput."""
    return tuple(_parse_cells(line.split(",")) for line in text.splitlines() if line.strip())


def _parse_cells(cells: Iterable[str]) -> tuple[Action, ...]:
    return tuple(Action.parse(cell) for cell in cells if cell.strip())
