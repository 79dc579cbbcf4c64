"""What a job's mode comes to, as a table: stages, lines, exact after all, or refused."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest

from frazil_jobs.api.parallelism import Parallelism
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.guidance import Guidance
from frazil_jobs.generation.modes.asked import AskedMode, acting_grid, asked_mode
from frazil_jobs.generation.modes.ranked import lines
from frazil_jobs.generation.rank_grid import RankGrid

ONE_CALL = Guidance(style="one-call", conditions=2, reason="two branches in one call", conditional=1, scale=5.0)
THREE = Guidance(style="one-call", conditions=3, reason="three branches in one call", scale=5.0)
TWO_CALLS = Guidance(style="two-call", conditions=2, reason="two calls a step", conditional=0, scale=5.0)
NONE = Guidance(style="none", conditions=1, reason="guidance_scale is 1")


def of(
    mode: str,
    guidance: Guidance = ONE_CALL,
    *,
    conditioning: int = 2,
    pipeline: int = 1,
    steps: int | None = 50,
    scheduler: str | None = "DDIMScheduler",
    **extra: Any,
) -> AskedMode:
    parallelism = Parallelism(mode=mode, conditioning=conditioning, pipeline=pipeline)
    grid = RankGrid(conditioning=conditioning, pipeline=pipeline)
    kind = None if scheduler is None else (getattr(diffusers, scheduler), {})
    return asked_mode(parallelism, grid, guidance, scheduler=kind, steps=steps, extra=extra)


@pytest.mark.parametrize(
    ("case", "mode", "stages", "live"),
    [
        ("Hybrid makes stages of its two branches' ranks", of("Hybrid"), 2, False),
        ("Hybrid takes all ranks into its window", of("Hybrid", pipeline=2), 4, False),
        ("Guided alone stays on its branches", of("Guided"), 1, False),
        ("Guided stays on its branches in two calls", of("Guided", TWO_CALLS), 1, False),
        ("a line of stages for each branch", of("Guided", pipeline=2), 2, True),
        ("the same in two calls", of("Guided", TWO_CALLS, pipeline=2), 2, True),
        ("one line for the prompt's branch", of("Guided", conditioning=1, pipeline=2), 2, False),
        ("three branches can reuse", of("Guided", THREE), 1, False),
        ("steps that aren't known yet", of("Hybrid", steps=None), 2, False),
    ],
)
def test_what_a_mode_is_on_ranks(case: str, mode: AskedMode, stages: int, live: bool) -> None:
    assert (mode.stages, mode.live, mode.whole_because) == (stages, live, ""), case
    assert mode.runs == mode.asked


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (of("Guided", NONE), "there is no guidance to approximate: guidance_scale is 1"),
        (of("Hybrid", scheduler="EulerAncestralDiscreteScheduler"), "draws noise in each step"),
        (of("Guided", scheduler="HeunDiscreteScheduler"), "several times a step"),
        (of("Guided", eta=0.3), "eta is above 0"),
        (of("Hybrid", steps=9), "less than one step"),
        (of("Guided", steps=3), "3, of which 3 must be whole"),
        (of("Guided", scheduler=None), "no scheduler"),
        (of("Guided", conditioning=1, pipeline=2, steps=2), "too few"),
    ],
)
def test_what_runs_exactly_and_why(mode: AskedMode, reason: str) -> None:
    assert mode.runs == "Exact"
    assert reason in mode.whole_because
    assert mode.stages == 1


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        ({"mode": "Guided", "pipeline": 2, "steps": 3}, "spec.parallelism.pipeline", "ranks without work"),
        ({"mode": "Hybrid", "pipeline": 2, "eta": 0.3}, "spec.parallelism.pipeline", "ranks without work"),
        ({"mode": "Hybrid", "guidance": TWO_CALLS}, "spec.parallelism.mode", "two calls a step"),
        ({"mode": "Hybrid", "guidance": THREE}, "spec.parallelism.mode", "three branches"),
        (
            {"mode": "Guided", "guidance": TWO_CALLS, "conditioning": 1, "pipeline": 2},
            "spec.parallelism.mode",
            "one line of stages",
        ),
    ],
)
def test_what_cannot_run_is_refused_with_field_and_remedy(arguments: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(BadConfiguration, match=words) as refused:
        of(**arguments)
    assert refused.value.field == field
    assert refused.value.remedy


def test_stages_of_one_condition_share_the_branches_in_whole_steps() -> None:
    def acting(conditioning: int, pipeline: int, mode: str = "Guided") -> RankGrid:
        parallelism = Parallelism(mode=mode, conditioning=conditioning, pipeline=pipeline)
        return acting_grid(parallelism, RankGrid(conditioning=conditioning, pipeline=pipeline))

    assert acting(1, 4) == RankGrid(conditioning=2, pipeline=2)
    assert acting(1, 2) == RankGrid(conditioning=2)
    assert acting(2, 2) == RankGrid(conditioning=2, pipeline=2)
    assert acting(1, 1) == RankGrid()
    with pytest.raises(BadConfiguration, match="even number"):
        acting(1, 3)


def test_lines_put_the_prompts_branch_last_so_that_its_boundaries_are_where_they_are_needed() -> None:
    grid = RankGrid(conditioning=2, pipeline=2)
    assert lines(grid, live=True, conditional=1, part=0) == [(0, 1), (2, 3)]
    assert lines(grid, live=False, conditional=1, part=0) == [(0, 1, 2, 3)]
    assert lines(grid, live=False, conditional=0, part=0) == [(2, 3, 0, 1)]
    split = RankGrid(conditioning=2, sequence=2)
    assert [lines(split, live=False, conditional=1, part=part) for part in range(2)] == [[(0, 2)], [(1, 3)]]
