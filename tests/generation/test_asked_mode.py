"""What a job's mode comes to, as a table: stages, lines, exact after all, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_pipelines
from generation_tasks import make_job, make_task, sampling_of

from frazil_jobs.api.parallelism import Parallelism
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.guidance import Guidance
from frazil_jobs.generation.modes.asked import AskedMode, acting_grid, asked_mode
from frazil_jobs.generation.modes.ranked import lines
from frazil_jobs.generation.prepare import Prepared, prepare
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
        (of("Guided", scheduler="IPNDMScheduler"), "nothing is known of the noise levels of IPNDMScheduler"),
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
        ({"mode": "Guided", "pipeline": 2, "scheduler": "IPNDMScheduler"}, "spec.parallelism.pipeline", "noise levels"),
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


@pytest.mark.parametrize(
    ("model", "mode", "words", "remedy"),
    [
        ("sdxl", {"mode": "Guided", "pipeline": 4}, "4 stages of its ranks, and a U-Net", "set it to 2"),
        ("sdxl", {"mode": "Hybrid", "pipeline": 2}, "4 stages of its ranks, and a U-Net", "set it to 1"),
        ("sdxl", {"mode": "Guided", "conditioning": 1, "pipeline": 4}, "4 stages", "set it to 2"),
        ("sd3", {"mode": "Guided", "pipeline": 4}, "3 blocks can't be cut into 4", "set it to 3 or less"),
        ("sd3-four", {"mode": "Hybrid", "pipeline": 4}, "4 blocks can't be cut into 8", "set it to 2 or less"),
        ("ltx", {"mode": "Guided", "pipeline": 2}, "too few to cut", "set it to 1"),
    ],
)
def test_more_stages_than_the_model_can_have_are_refused_from_its_small_files(
    tmp_path: Path, model: str, mode: dict[str, Any], words: str, remedy: str
) -> None:
    with pytest.raises(BadConfiguration, match=words) as refused:
        _prepared(tmp_path, model, **mode)
    assert refused.value.field == "spec.parallelism.pipeline"
    assert (refused.value.remedy or "").startswith(remedy)


def test_a_model_that_can_not_be_cut_is_known_to_run_exactly_before_its_weights_are_read(tmp_path: Path) -> None:
    assert _prepared(tmp_path, "sd3", mode="Guided", pipeline=2).mode.stages == 2
    mode = _prepared(tmp_path, "ltx", mode="Guided").mode
    assert mode.runs == "Exact"
    assert "too few to cut" in mode.whole_because


def _prepared(folder: Path, model: str, **parallelism: Any) -> Prepared:
    """What is decided for a model folder that has no weights at all."""
    pipe = tiny_pipelines.build(model)
    degrees = Parallelism(**parallelism)
    ranks = degrees.conditioning * degrees.pipeline
    for name, part in pipe.components.items():
        if part is not None and hasattr(part, "save_config"):
            part.save_config(folder / model / name)
    pipe.save_config(folder / model)
    sampling = sampling_of(model, steps=50)
    output = {"format": "mp4" if model == "ltx" else "png"}
    job = make_job(model, parallelism=parallelism, sampling=sampling, workers={"gpus_per_node": ranks}, output=output)
    return prepare(make_task(job, folder / model, pipeline=type(pipe).__name__), ranks=ranks)


def test_lines_put_the_prompts_branch_last_so_that_its_boundaries_are_where_they_are_needed() -> None:
    grid = RankGrid(conditioning=2, pipeline=2)
    assert lines(grid, live=True, conditional=1, part=0) == [(0, 1), (2, 3)]
    assert lines(grid, live=False, conditional=1, part=0) == [(0, 1, 2, 3)]
    assert lines(grid, live=False, conditional=0, part=0) == [(2, 3, 0, 1)]
    eight = RankGrid(conditioning=2, pipeline=4)
    assert lines(eight, live=True, conditional=1, part=0) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert lines(eight, live=False, conditional=0, part=0) == [(4, 5, 6, 7, 0, 1, 2, 3)]
    split = RankGrid(conditioning=2, sequence=2)
    assert [lines(split, live=False, conditional=1, part=part) for part in range(2)] == [[(0, 2)], [(1, 3)]]
