"""Timings: linear times, their JSON, and what follows for other schedules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some
from planning_cases import steps
from pydantic import ValidationError

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning.actions import Action, Kind
from frazil_jobs.training.planning.schedules import ScheduleOrder, order_of
from frazil_jobs.training.planning.timings import ActionTime, StageTime, Timings

STAGES = (
    StageTime(forward=1.0, backward=3.0, backward_frozen=0.0),
    StageTime(forward=1.5, backward=3.5, backward_frozen=1.5),
)


@given(steps())
def test_every_float_comes_back_from_json_bit_for_bit(step: tuple[ScheduleOrder, Timings]) -> None:
    timings = step[1]
    back = Timings.from_json(timings.to_json())
    assert back == timings
    assert back.digest == timings.digest
    assert back.to_json() == timings.to_json()


def test_the_digest_follows_the_last_bit() -> None:
    import math

    order = order_of("1F1B", ranks=2, microbatches=2).order
    timings = Timings.of_stages(STAGES, order, provenance="recorded")
    moved = STAGES[1].model_copy(update={"forward": math.nextafter(1.5, 2)})
    other = Timings.of_stages((STAGES[0], moved), order, provenance="recorded")
    assert timings.digest != other.digest


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{}", "provenance"),
        ('{"provenance": "guessed", "actions": {}, "hop_seconds": []}', "provenance"),
        ('{"provenance": "recorded", "actions": {"0F0": {"full": -1, "frozen": 0}}, "hop_seconds": []}', "actions"),
        ('{"provenance": "recorded", "actions": {"0SEND_F0": {"full": 1, "frozen": 1}}, "hop_seconds": []}', "actions"),
    ],
)
def test_what_are_no_timings_is_refused_with_its_field(text: str, field: str) -> None:
    with pytest.raises(BadInput) as refused:
        Timings.from_json(text)
    assert str(refused.value.field).startswith(field)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(BadInput, match="no Timings"):
        Timings.from_json("seconds: 3")


@given(some.floats(0, 10), some.floats(0, 1), some.floats(0, 1))
def test_time_falls_along_a_line(full: float, share: float, ratio: float) -> None:
    time = ActionTime(full=full, frozen=share * full)
    assert time.at(0.0) == full
    assert time.at(1.0) == pytest.approx(time.frozen)
    assert time.at(ratio) == pytest.approx(full - ratio * (full - share * full))


def test_a_curve_is_joined_by_lines() -> None:
    time = ActionTime(full=10, frozen=0, curve=((0.5, 8), (0.9, 7)))
    assert [time.at(ratio) for ratio in (0, 0.25, 0.5, 0.7, 0.9, 1)] == pytest.approx([10, 9, 8, 7.5, 7, 0])


@pytest.mark.parametrize("curve", [((0.5, 1), (0.5, 1)), ((0.0, 1),), ((0.6, 1), (0.4, 1)), ((1.0, 0),)])
def test_a_curve_that_does_not_ascend_is_refused(curve: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValidationError, match="ascending"):
        ActionTime(full=2, frozen=1, curve=curve)


def test_frozen_is_never_longer_than_full() -> None:
    with pytest.raises(ValidationError, match="must not be longer"):
        ActionTime(full=1, frozen=2)


def test_a_split_backward_takes_what_the_full_one_takes() -> None:
    order = order_of("ZBH1", ranks=2, microbatches=2).order
    times = Timings.of_stages(STAGES, order, provenance="estimated").actions
    assert times[Action(Kind.B, 0, 0)] == ActionTime(full=3, frozen=0)
    assert times[Action(Kind.I, 1, 0)] == ActionTime(full=1.5, frozen=1.5)
    assert times[Action(Kind.W, 1, 0)] == ActionTime(full=2, frozen=0)


@pytest.mark.parametrize("schedule", ["1F1B", "ZBH1"])
def test_stage_times_come_back_from_the_timings_of_either_kind_of_backward(schedule: str) -> None:
    order = order_of(schedule, ranks=2, microbatches=3).order
    timings = Timings.of_stages(STAGES, order, provenance="recorded")
    assert timings.stage_times() == STAGES


def test_a_stage_without_a_backward_has_no_stage_time() -> None:
    actions = {Action(Kind.F, 0, 0): ActionTime(full=1, frozen=1)}
    with pytest.raises(BadInput, match="stage 0"):
        Timings(provenance="recorded", actions=actions, hop_seconds=()).stage_times()


@given(steps())
def test_the_average_of_a_stage_keeps_its_sums(step: tuple[ScheduleOrder, Timings]) -> None:
    timings = step[1]
    mean = timings.stage_averaged()
    for kind in Kind:
        for stage in range(step[0].stages):
            of = [action for action in timings.actions if (action.kind, action.stage) == (kind, stage)]
            assert len({mean.actions[action] for action in of}) <= 1
            for name in ("full", "frozen"):
                total = sum(getattr(timings.actions[action], name) for action in of)
                assert sum(getattr(mean.actions[action], name) for action in of) == pytest.approx(total)
