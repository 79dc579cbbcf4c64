"""Orders against torch's own, and what each rank keeps."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from planning_cases import orders, torch_order

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning import dag
from frazil_jobs.training.planning.actions import Action, Kind, Order, Placement
from frazil_jobs.training.planning.schedules import (
    STAGES_A_RANK,
    ScheduleOrder,
    executed,
    microbatches_held,
    order_of,
)

PLAIN: tuple[Schedule, ...] = ("GPipe", "1F1B", "Interleaved1F1B")


@pytest.mark.parametrize("schedule", PLAIN)
def test_the_order_is_torchs_own(schedule: Schedule) -> None:
    compared = 0
    for ranks, microbatches in itertools.product((2, 3, 4), (1, 2, 3, 4, 5, 6, 8, 9, 12, 13)):
        try:
            ours = order_of(schedule, ranks=ranks, microbatches=microbatches).order
        except BadConfiguration:
            with pytest.raises(ValueError, match="multiple of the number of rounds"):
                torch_order(schedule, ranks, microbatches)
            continue
        if schedule == "1F1B" and microbatches < ranks:  # which torch doesn't take, and neither does the API
            continue
        assert ours == torch_order(schedule, ranks, microbatches)
        compared += 1
    assert compared >= 20


def test_the_order_of_zbv_is_torchs_own_with_the_first_stages_backward_in_one() -> None:
    for ranks, microbatches in itertools.product((2, 3, 4), (1, 2, 3, 4, 5, 6, 8, 9, 12, 13)):
        ours = order_of("ZBV", ranks=ranks, microbatches=microbatches).order
        torchs = torch_order("ZBV", ranks, microbatches)
        assert ours == executed(torchs)
        assert _with_first_stage_split(ours) == torchs


def test_stages_are_placed_as_torch_places_them() -> None:
    from torch.distributed.pipelining._utils import generate_stage_to_rank_mapping

    for ranks in (2, 3, 4):
        for style, schedule in (("loop", "Interleaved1F1B"), ("v", "ZBV")):
            expected = generate_stage_to_rank_mapping(ranks, 2 * ranks, style=style)
            found = order_of(schedule, ranks=ranks, microbatches=2 * ranks).placement.ranks_of_stages
            assert dict(enumerate(found)) == expected


def test_zbh1_is_an_order_that_torchs_runtime_accepts() -> None:
    from torch.distributed.pipelining.schedules import _Action, _add_send_recv, _validate_schedule

    for ranks, microbatches in itertools.product((2, 3, 4), (1, 2, 4, 7)):
        order = order_of("ZBH1", ranks=ranks, microbatches=microbatches)
        rows = {rank: [_Action.from_str(str(action)) for action in actions] for rank, actions in enumerate(order.order)}
        placed = _validate_schedule(rows, ranks, ranks, microbatches)
        assert tuple(placed[stage] for stage in range(ranks)) == order.placement.ranks_of_stages
        _add_send_recv(rows, placed.__getitem__, ranks)


def test_zbh1_warms_up_as_1f1b_does_and_keeps_no_more_than_its_first_rank() -> None:
    for ranks, microbatches in itertools.product((2, 3, 4, 6), (1, 2, 5, 12)):
        split = order_of("ZBH1", ranks=ranks, microbatches=microbatches)
        plain = order_of("1F1B", ranks=ranks, microbatches=microbatches)
        dropped = tuple(tuple(_whole(action) for action in row if action.kind is not Kind.W) for row in split.order)
        assert dropped == plain.order
        assert max(microbatches_held(split)) <= max(microbatches_held(plain))


@given(orders(ranks=6, microbatches=16))
def test_every_stage_sees_every_microbatch_and_no_order_waits_for_ever(order: ScheduleOrder) -> None:
    graph = dag.build(order)
    assert sorted(graph.actions) == sorted(order.actions)


def test_microbatches_held_are_those_of_the_textbook() -> None:
    assert microbatches_held(order_of("GPipe", ranks=3, microbatches=8)) == (8, 8, 8)
    assert microbatches_held(order_of("1F1B", ranks=3, microbatches=8)) == (3, 2, 1)
    assert microbatches_held(order_of("1F1B", ranks=3, microbatches=2)) == (2, 2, 1)
    assert microbatches_held(order_of("Interleaved1F1B", ranks=4, microbatches=8)) == (5.5, 4.5, 3.5, 2.5)
    assert microbatches_held(order_of("ZBV", ranks=4, microbatches=8)) == (4, 4, 4, 4)


def test_interleaved_refuses_rounds_that_are_not_equal_and_names_the_way_out() -> None:
    with pytest.raises(BadConfiguration) as refused:
        order_of("Interleaved1F1B", ranks=4, microbatches=9)
    assert refused.value.field == "spec.parallelism.microbatches"
    for remedy in (8, 12):
        assert str(remedy) in str(refused.value.remedy)
        order_of("Interleaved1F1B", ranks=4, microbatches=remedy)


def test_a_pipeline_of_nothing_is_refused() -> None:
    with pytest.raises(BadConfiguration):
        order_of("1F1B", ranks=0, microbatches=4)
    with pytest.raises(BadConfiguration):
        order_of("1F1B", ranks=2, microbatches=0)


def test_the_v_turns_on_the_last_rank_without_a_hop() -> None:
    order = order_of("ZBV", ranks=3, microbatches=5)
    assert order.placement == Placement.v(3)
    edges = {(edge.source, edge.target): edge.seconds for edge in dag.build(order, (1.0,) * 5).edges}
    assert edges[Action(Kind.F, 2, 0), Action(Kind.F, 3, 0)] == 0
    assert edges[Action(Kind.F, 1, 0), Action(Kind.F, 2, 0)] == 1
    assert edges[Action(Kind.I, 3, 0), Action(Kind.I, 2, 0)] == 0
    assert edges[Action(Kind.I, 1, 0), Action(Kind.B, 0, 0)] == 1


def _whole(action: Action) -> Action:
    return Action(Kind.B, action.stage, action.microbatch) if action.kind is Kind.I else action


def _with_first_stage_split(order: Order) -> Order:
    return tuple(
        tuple(
            part
            for action in row
            for part in (
                [Action(Kind.I, 0, action.microbatch), Action(Kind.W, 0, action.microbatch)]
                if action.kind is Kind.B
                else [action]
            )
        )
        for row in order
    )


def test_the_rules_of_the_api_allow_exactly_what_has_an_order_and_fills_the_pipeline() -> None:
    from frazil_jobs.api.pipelining import TrainingParallelism
    from frazil_jobs.api.problems import rule_problems

    for schedule, ranks, microbatches in itertools.product(STAGES_A_RANK, (1, 2, 3, 4), range(1, 14)):
        asked = TrainingParallelism(schedule=schedule, pipeline=ranks, microbatches=microbatches)
        try:
            order_of(schedule, ranks=ranks, microbatches=microbatches)
            there = True
        except BadConfiguration:
            there = False
        enough = microbatches >= ranks and (ranks > 1 or schedule in ("GPipe", "1F1B"))
        assert (not rule_problems(asked)) == (there and enough), asked
