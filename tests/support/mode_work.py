"""Calls in approximate modes: what ranks of a `RankPool` make of them, and what the simulator does in this process."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from branch_cases import Case, build, call_of
from rank_work import configs_of, watched

from frazil_jobs.api.parallelism import Switching
from frazil_jobs.generation.branches import BranchSplit, split_branches
from frazil_jobs.generation.groups import RankGroups, join_groups
from frazil_jobs.generation.modes.asked import AskedMode
from frazil_jobs.generation.modes.forecast import Kept, StaleTensor
from frazil_jobs.generation.modes.link import Line, Link
from frazil_jobs.generation.rank_grid import RankGrid
from frazil_jobs.generation.sequence import split_sequence
from frazil_jobs.generation.simulate import simulate
from frazil_jobs.generation.stages.cut import Boundary, Stages


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A mode, in words that can be sent to a rank. `grid`: conditioning × pipeline in whole steps."""

    asked: str = "Guided"
    grid: tuple[int, int] = (2, 1)
    stages: int = 1
    live: bool = False
    switching: dict[str, Any] = field(default_factory=dict)

    def as_asked(self) -> AskedMode:
        """The mode as the code takes it."""
        return AskedMode(asked=self.asked, switching=Switching(**self.switching), stages=self.stages, live=self.live)

    def __str__(self) -> str:
        name = "live" if self.live else "line" if self.stages > 1 else "reuse"
        rest = " ".join(f"{key}={value}" for key, value in self.switching.items())
        return f"{self.asked} {name} {'x'.join(map(str, self.grid))} {rest}"


@functools.cache
def groups_for(conditioning: int, pipeline: int) -> RankGroups:
    """The groups of a grid with stages, made once a process."""
    grid = RankGrid(conditioning=conditioning, pipeline=pipeline)
    return join_groups(grid, timeout=timedelta(seconds=60), staged=True)


def on_ranks(cases: list[Case], mode: Mode) -> list[dict[str, Any]]:
    """The calls of `cases`, one after the other on one pipeline, on this rank. What was seen of each."""
    groups = groups_for(*mode.grid)
    pipe = build(cases[0])
    with split_branches(pipe, groups, configs_of(pipe), mode=mode.as_asked(), debug=True, record=True) as split:
        return [_call(pipe, split, case) for case in cases]


def out_of_order(steps: list[int]) -> str:
    """Two stages whose first one sends what it made in `steps`, for 3, 4 … that the second takes it for."""
    groups = groups_for(2, 1)
    stages, boundary = Stages(owners=(0, 1), count=2), Boundary(0, 0, 1)
    assert groups.links is not None
    link = Link(Line(ranks=(0, 1), stage=groups.rank, up=groups.links[0], down=groups.links[1]))
    like = torch.ones(3, 5, dtype=torch.half)
    for expected, made in enumerate(steps, start=3):
        link.expect(expected, stages, lambda _: (like,))
        if groups.rank == 0:
            link.send(boundary, Kept(made, (like * made,)))
        for kept in link.arrived().values():
            assert kept.step == expected
            assert torch.equal(kept.tensors[0], like * made)
    try:
        link.close()
    except StaleTensor as error:
        return str(error)
    return "in order"


def with_sequence(cases: list[Case], mode: Mode) -> list[dict[str, Any]]:
    """The same with two ranks sharing the tokens of each branch."""
    grid = RankGrid(conditioning=2, sequence=2)
    groups = join_groups(grid, timeout=timedelta(seconds=60))
    pipe = build(cases[0])
    split_sequence(pipe, groups)
    with split_branches(pipe, groups, configs_of(pipe), mode=mode.as_asked(), record=True) as split:
        return [_call(pipe, split, case) for case in cases]


def simulated(cases: list[Case], mode: Mode) -> list[dict[str, Any]]:
    """The same in this process alone."""
    pipe = build(cases[0])
    with simulate(pipe, configs_of(pipe), mode.as_asked(), one_by_one=mode.grid[0] == 2) as split:
        return [_call(pipe, split, case) for case in cases]


def _call(pipe: Any, split: BranchSplit, case: Case) -> dict[str, Any]:
    arguments = call_of(case)
    with watched(pipe) as seen, split.call(arguments, batch_size=case.batch):
        latents = pipe(**arguments)[0]
    assert split.course is not None
    return {
        "latents": latents,
        "predictions": [record.predictions for record in split.records],
        "kinds": "".join(kind.value[0] for kind in split.course.kinds),
        "ages": split.course.ages,
        "facts": split.course.facts,
        "inputs": seen["inputs"],
        "messages": seen["messages"],
        "rank": dist.get_rank() if dist.is_initialized() else None,
    }


def as_simulated(ranks: list[list[dict[str, Any]]], expected: list[dict[str, Any]]) -> bool:
    """Whether all ranks made every call as the simulator did, at every step, and used nothing older or younger.

    An age is a rank's own (a stage that needs no boundary has none); the step's is the greatest.
    """
    return all(
        all(_same(rank[call], one) for rank in ranks)
        and [max(ages) for ages in zip(*(rank[call]["ages"] for rank in ranks), strict=True)] == one["ages"]
        for call, one in enumerate(expected)
    )


def _same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two runs of a call are equal bit for bit, at every step, and say the same of themselves."""
    return (
        ours["kinds"] == theirs["kinds"]
        and ours["facts"] == theirs["facts"]
        and len(ours["inputs"]) == len(theirs["inputs"])
        and all(map(torch.equal, ours["inputs"], theirs["inputs"]))
        and all(map(torch.equal, ours["predictions"], theirs["predictions"]))
        and torch.equal(ours["latents"], theirs["latents"])
    )
