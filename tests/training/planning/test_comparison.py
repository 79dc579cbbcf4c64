"""The published 8B run: what of it is reproduced, and what ours is beside it. Figures: TimelyFreeze's logs, 1F1B, M = 8."""

from __future__ import annotations

import pytest

from frazil_jobs.training.planning import published
from frazil_jobs.training.planning.comparison import METHODS, Row, compare, reach
from frazil_jobs.training.planning.models import ModelTime
from frazil_jobs.training.planning.partition import uniform
from frazil_jobs.training.planning.program import FreezingSettings, solve
from frazil_jobs.training.planning.schedules import STAGES_A_RANK, order_of
from frazil_jobs.training.planning.timings import StageTime, Timings

LOGGED_RATIO = 0.709
"""Mean freeze ratio of the published 8B 1F1B run (TimelyFreeze, cap 0.8)."""


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], Row]:
    found = compare(
        published.MODEL,
        ranks=published.RANKS,
        microbatches=published.MICROBATCHES,
        settings=FreezingSettings(max_ratio=published.MAX_RATIO),
    )
    return {(row.schedule, row.method): row for row in found}


def test_the_blocks_of_the_published_model_add_up_to_its_stages() -> None:
    for stage, of_blocks in zip(published.STAGES, published.MODEL.stage_times(uniform(32, 4)), strict=True):
        assert of_blocks.model_dump() == pytest.approx(stage.model_dump())


@pytest.mark.parametrize(
    ("cap", "kappa", "mean"),
    [
        (0.05, 1.064, 0.041),
        (0.10, 1.132, 0.084),
        (0.15, 1.200, 0.135),
        (0.20, 1.235, 0.160),
        (0.30, 1.285, 0.212),
        (0.40, 1.339, 0.266),
        (0.60, 1.463, 0.402),
        (0.80, 1.611, 0.585),
        (0.90, 1.697, 0.681),
    ],
)
def test_the_frontier_of_1f1b_is_what_was_computed_independently(cap: float, kappa: float, mean: float) -> None:
    """Against figures from another implementation of the exact model, with 1 % slack, on the same timings."""
    order = order_of("1F1B", ranks=4, microbatches=8)
    timings = Timings.of_stages(published.STAGES, order.order, provenance="recorded")
    # to train every tensor in one of the 8 microbatches costs nothing below a ratio of 7 / 8
    for trains_all in (False, True) if cap < 7 / 8 else (False,):
        plan = solve(order, timings, FreezingSettings(max_ratio=cap, trains_all=trains_all))
        assert plan.speedup == pytest.approx(kappa, abs=6e-4)
        assert plan.mean_freeze_ratio == pytest.approx(mean, abs=6e-4)


def test_the_published_plan_is_reproduced(rows: dict[tuple[str, str], Row]) -> None:
    """Logged: 675.6 ms before and 424.9 after, at .709. The same model without noise was computed as 658, 407 and .60, and
    as 446 with tensors drawn at random."""
    assert rows["1F1B", "none"].makespan == pytest.approx(0.658, abs=0.001)
    assert rows["1F1B", "published"].makespan == pytest.approx(0.407, abs=0.003)
    assert rows["1F1B", "published"].mean_freeze_ratio == pytest.approx(0.60, abs=0.01)
    assert rows["1F1B", "published as run"].makespan == pytest.approx(0.446, abs=0.003)
    assert 0.60 < rows["1F1B", "published as run"].mean_freeze_ratio < LOGGED_RATIO


def test_ours_is_within_its_slack_of_the_published_speed_with_less_freezing(rows) -> None:
    for schedule in STAGES_A_RANK:
        ours, theirs = rows[schedule, "ours"], rows[schedule, "published"]
        assert ours.makespan <= 1.01 * theirs.makespan * (1 + 1e-9)
        assert ours.mean_freeze_ratio < theirs.mean_freeze_ratio
        assert ours.makespan < rows[schedule, "published as run"].makespan
    assert rows["1F1B", "ours"].mean_freeze_ratio < 0.83 * LOGGED_RATIO


def test_as_fast_as_the_published_plan_runs_1f1b_freezes_two_thirds_and_split_backward_half_as_much(rows) -> None:
    theirs = rows["1F1B", "published as run"]
    found = {
        one.schedule: one.plan.mean_freeze_ratio / theirs.mean_freeze_ratio
        for one in reach(published.MODEL, ranks=4, microbatches=8, within=theirs.makespan)
        if one.plan is not None
    }
    assert found["1F1B"] < 0.67
    assert found["ZBH1"] < 0.5
    assert found["ZBV"] < 0.3


def test_splitting_the_backward_gives_a_fifth_with_nothing_frozen(rows) -> None:
    assert rows["ZBH1", "none"].speedup >= 1.2
    assert rows["ZBV", "none"].speedup >= 1.2
    for schedule in ("ZBH1", "ZBV"):
        assert rows[schedule, "none"].activations_held <= rows["1F1B", "none"].activations_held


def test_every_schedule_and_method_has_a_row_that_is_no_better_than_freezing_all(rows) -> None:
    assert {schedule for schedule, _ in rows} == set(STAGES_A_RANK)
    assert {method for _, method in rows} == set(METHODS)
    for (schedule, _), row in rows.items():
        assert row.makespan <= 1.0001 * rows[schedule, "none"].makespan
        assert row.gradient_rate == pytest.approx(row.speedup * (1 - row.mean_freeze_ratio))


def test_what_a_schedule_cannot_reach_has_no_plan() -> None:
    found = reach(published.MODEL, ranks=4, microbatches=8, within=0.01)
    assert [one.plan for one in found] == [None] * len(STAGES_A_RANK)


def test_schedules_that_the_model_or_the_microbatches_do_not_allow_are_left_out() -> None:
    stages = (StageTime(forward=1, backward=2, backward_frozen=0), StageTime(forward=1, backward=2, backward_frozen=1))
    model = ModelTime.of_stages(stages, blocks=(1, 1), provenance="estimated")
    shown = {row.schedule for row in compare(model, ranks=2, microbatches=4, settings=FreezingSettings())}
    assert shown == {"GPipe", "1F1B", "ZBH1"}
