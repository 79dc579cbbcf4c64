"""How long each part of a model takes, block by block, and so each stage of any cut of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Self

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning.canonical import Canonical
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.timings import Provenance, Seconds, StageTime, Timings


@dataclass(frozen=True, order=True)
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

    @classmethod
    def of_stages(
        cls, stages: Sequence[StageTime], *, blocks: Sequence[int], provenance: Provenance, hop_seconds: float = 0.0
    ) -> Self:
        """A model whose stages were timed: each stage's time spread evenly over its blocks, `blocks` of each.

        How the first stage's backward divides into dX and dW was not seen: as in the mean of the others, less the dX of its
        first block, which nobody needs. Raises BadInput for stages and blocks that don't match."""
        if len(stages) != len(blocks) or not all(blocks):
            raise BadInput(
                f"{len(stages)} timed stages and blocks of {len(blocks)} stages",
                field="stage_blocks",
                remedy="give the number of blocks of each timed stage",
            )
        shares = [stage.backward_frozen / stage.backward for stage in stages[1:] if stage.backward] or [0.5]
        made: list[BlockTime] = []
        for at, (stage, count) in enumerate(zip(stages, blocks, strict=True)):
            inputs = stage.backward_frozen / count
            weights = (stage.backward - stage.backward_frozen) / count
            if at == 0:
                share = fmean(shares)
                each = stage.backward / (count - share)
                inputs, weights = share * each, (1 - share) * each
            block = BlockTime(forward=stage.forward / count, backward_input=inputs, backward_weight=weights)
            made += [block] * count
        return cls(blocks=tuple(made), provenance=provenance, hop_seconds=hop_seconds)

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
