"""An approximate mode on the ranks of a replica: which stage is whose, what is sent, and what comes together.

Outside of staged steps nothing is sent but the one gather of the exact split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from frazil_jobs.base.exits import FrazilError
from frazil_jobs.generation.exchange import gather
from frazil_jobs.generation.groups import RankGroups
from frazil_jobs.generation.guidance import Guidance
from frazil_jobs.generation.modes.conductor import Conductor
from frazil_jobs.generation.modes.forecast import Kept
from frazil_jobs.generation.modes.link import Line, Link
from frazil_jobs.generation.modes.policy import Kind
from frazil_jobs.generation.rank_grid import Place, RankGrid
from frazil_jobs.generation.stages.cut import Boundary


def lines(grid: RankGrid, *, live: bool, conditional: int, part: int) -> list[tuple[int, ...]]:
    """The ranks of each line, by stage. One line a branch when `live`, else one of all, the prompt's branch last."""
    rows = [
        tuple(grid.rank_of(Place(branch, stage, part)) for stage in range(grid.pipeline))
        for branch in range(grid.conditioning)
    ]
    if live:
        return rows
    order = [*(branch for branch in range(grid.conditioning) if branch != conditional), conditional]
    return [tuple(rank for branch in order for rank in rows[branch])]


@dataclass
class RankConductor(Conductor):
    """This rank's part in the mode. Implements `work.Work`."""

    groups: RankGroups = field(kw_only=True)
    _link: Link | None = field(default=None, init=False)
    _broken: bool = field(default=False, init=False)

    def _reset(self) -> None:
        super()._reset()
        self._broken = self._broken or (self._link is not None and self._link.busy)
        self._link = None
        self._lines: list[tuple[int, ...]] = []
        self._held: dict[Boundary, Kept] | None = None

    def begin(self, guidance: Guidance, arguments: Mapping[str, Any], *, exact: bool = False) -> None:
        """A pipeline call begins. Raises FrazilError after one that failed between stages."""
        if self._broken:
            raise FrazilError("an earlier call failed while tensors were on their way between stages")
        super().begin(guidance, arguments, exact=exact)

    @property
    def line_branch(self) -> int | None:
        """The prompt's branch when all ranks are one line in the step that comes next."""
        return self.conditional if self.kind is Kind.STAGED and not self.mode.live else None

    def evaluate(self, branch: Any, arguments: Mapping[str, Any], call: Callable[[], Any]) -> Any:
        """Whole, without its core, or this rank's stage of it."""
        if self.kind is not Kind.STAGED:
            return super().evaluate(branch, arguments, call)
        denoiser, link = self._current, self._link
        assert denoiser is not None
        assert denoiser.cuts is not None
        assert denoiser.cuts.stages is not None
        assert link is not None
        held = link.arrived() if self._held is None else self._held
        self._held = None
        link.expect(self._step, denoiser.cuts.stages, lambda position: denoiser.units.like(position, branch))
        output, self._age = denoiser.staged(branch, link.line.stage, self._step, held, call, link.send)
        return output

    def exchange(self, prediction: torch.Tensor) -> torch.Tensor:
        """One gather, or in a staged step one broadcast from the last rank of each line."""
        if self.kind is not Kind.STAGED:
            return gather(prediction, self.groups)
        assert self._policy is not None
        group = self.groups.conditioning if self.groups.grid.pipeline == 1 else self.groups.replica
        predictions = [
            prediction.contiguous() if ranks[-1] == self.groups.rank else prediction.new_empty(prediction.shape)
            for ranks in self._lines
        ]
        works = [
            dist.broadcast(one, ranks[-1], group=group, async_op=True)
            for one, ranks in zip(predictions, self._lines, strict=True)
        ]
        for work in works:
            if work is not None:  # not a member, says torch: never the case here
                work.wait()
        if self.mode.live:
            return torch.cat(predictions)
        return self._policy.from_stages(predictions[0]).flatten(0, 1)

    def _enter_window(self) -> None:
        """The last whole step's boundaries, from who evaluated the branch, to the stages that need them."""
        denoiser, groups = self._current, self.groups
        assert denoiser is not None
        assert denoiser.cuts is not None
        assert denoiser.cuts.stages is not None
        stages, place = denoiser.cuts.stages, groups.place
        conditional = 0 if self.conditional is None else self.conditional
        self._lines = lines(groups.grid, live=self.mode.live, conditional=conditional, part=place.part)
        mine = next(ranks for ranks in self._lines if groups.rank in ranks)
        assert groups.links is not None
        line = Line(ranks=mine, stage=mine.index(groups.rank), up=groups.links[0], down=groups.links[1])
        self._link = Link(line)
        branch = place.branch if self.mode.live else conditional
        kept = denoiser.boundaries_of(branch)
        self._held = {boundary: kept[boundary] for boundary in stages.into(line.stage) if boundary in kept}
        evaluated = [groups.grid.place_of(rank).branch == branch for rank in mine]
        for stage, has in enumerate(evaluated):
            if has:
                continue
            for boundary in stages.into(stage):
                if groups.rank == line.last:
                    self._link.hand_over(kept[boundary], stage)
                elif stage == line.stage:
                    like = denoiser.units.like(boundary.after, branch)
                    self._held[boundary] = self._link.take_over(self._step - 1, like)

    def _leave_window(self) -> None:
        link, self._link, self._held = self._link, None, None
        if link is not None:
            link.close()
