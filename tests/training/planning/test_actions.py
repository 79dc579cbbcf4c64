"""Actions and orders as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some
from planning_cases import orders

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning.actions import Action, Kind, Placement, parse_order, text_of
from frazil_jobs.training.planning.schedules import ScheduleOrder

actions = some.builds(Action, some.sampled_from(Kind), some.integers(0, 10**6), some.integers(0, 10**6))


@given(actions)
def test_the_text_of_an_action_comes_back(action: Action) -> None:
    assert Action.parse(str(action)) == action


def test_the_text_is_stage_kind_microbatch_as_torch_writes_it() -> None:
    from torch.distributed.pipelining.schedules import _Action

    assert str(Action(Kind.F, 0, 1)) == "0F1"
    for kind in Kind:
        ours = Action(kind, 12, 3)
        assert str(_Action.from_str(str(ours))) == str(ours)


@pytest.mark.parametrize("text", ["", "F1", "0F", "0SEND_F1", "0X1", "-1F0", "0f1", "0F1 1F1", "٣F1"])
def test_what_is_no_action_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is no action"):
        Action.parse(text)


@given(orders())
def test_the_text_of_an_order_comes_back(order: ScheduleOrder) -> None:
    assert parse_order(text_of(order.order)) == order.order


def test_empty_cells_are_idle_slots() -> None:
    assert parse_order("0F0,,0B0\n,1F0,1B0\n") == parse_order("0F0,0B0\n1F0,1B0\n")


def test_a_loop_puts_stage_s_on_rank_s_modulo_ranks_and_a_v_goes_down_and_up() -> None:
    assert Placement.loop(2, 4).ranks_of_stages == (0, 1, 0, 1)
    assert Placement.v(2).ranks_of_stages == (0, 1, 1, 0)
    assert Placement.v(2).stages_of(0) == (0, 3)
    assert [Placement.v(2).crosses_ranks(stage) for stage in range(3)] == [True, False, True]
