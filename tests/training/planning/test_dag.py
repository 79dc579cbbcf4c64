"""What waits for what, and which orders are refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from planning_cases import orders

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning import dag
from frazil_jobs.training.planning.actions import Action, Kind, Order, Placement, parse_order
from frazil_jobs.training.planning.schedules import ScheduleOrder, order_of


@given(orders())
def test_edges_are_those_of_the_definition_and_point_forwards(order: ScheduleOrder) -> None:
    hops = tuple(1.0 + stage for stage in range(order.stages - 1))
    graph = dag.build(order, hops)
    there = set(order.actions)

    def hop(stage: int) -> float:
        ranks = order.placement.ranks_of_stages
        return hops[stage] if ranks[stage] != ranks[stage + 1] else 0.0

    expected: dict[tuple[Action, Action], float] = {}
    for action in there:
        kind, stage, microbatch = action.kind, action.stage, action.microbatch
        if kind is Kind.F and Action(Kind.F, stage + 1, microbatch) in there:
            expected[action, Action(Kind.F, stage + 1, microbatch)] = hop(stage)
        for backward in (Kind.B, Kind.I):
            if kind is Kind.F and Action(backward, stage, microbatch) in there:
                expected[action, Action(backward, stage, microbatch)] = 0.0
            if kind in (Kind.B, Kind.I) and Action(backward, stage - 1, microbatch) in there:
                expected[action, Action(backward, stage - 1, microbatch)] = hop(stage - 1)
        if kind is Kind.I:
            expected[action, Action(Kind.W, stage, microbatch)] = 0.0
    for row in order.order:
        for before, after in pairwise(row):
            expected.setdefault((before, after), 0.0)
    assert {(edge.source, edge.target): edge.seconds for edge in graph.edges} == expected
    place = {action: at for at, action in enumerate(graph.actions)}
    assert all(place[edge.source] < place[edge.target] for edge in graph.edges)


def custom(text: str) -> ScheduleOrder:
    return of(parse_order(text))


def of(order: Order) -> ScheduleOrder:
    return ScheduleOrder(order=order, placement=Placement.loop(len(order), len(order)), stages=len(order))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0F0,0B0\n1B0,1F0\n", "rank 1 is at 1B0 and waits for 1F0"),
        ("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n", "wait for each other for ever"),
        ("0F0,0B0\n1F0,1W0,1I0\n", "rank 1 is at 1W0 and waits for 1I0"),
        ("0F0,0B0\n1F0\n", "stage 1 has F of microbatch 0"),
        ("0F0,0B0\n1F0,1I0\n", "stage 1 has F, I of microbatch 0"),
        ("0F0,0B0\n1F0,1B0,1W0\n", "stage 1 has F, B, W of microbatch 0"),
        ("0F0,0B0\n1F0,1B0,1F0\n", "1F0 is there twice"),
        ("0F0,0B0,0F1,0B1\n1F0,1B0\n", "stage 1 has nothing of microbatch 1"),
        ("0F0,0B0\n2F0,2B0\n", "2F0 is on rank 1, which does not hold stage 2"),
        ("0F0,1B0\n1F0,0B0\n", "1B0 is on rank 0, which does not hold stage 1"),
        ("0F0,0I0,0W0\n1F0,1I0,1W0\n", "0I0 computes nothing"),
    ],
)
def test_an_order_that_cannot_run_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        dag.build(custom(text))


def test_an_empty_order_is_refused() -> None:
    with pytest.raises(BadInput, match="empty"):
        dag.build(of(((), ())))


def test_hops_are_one_for_each_boundary() -> None:
    order = order_of("1F1B", ranks=3, microbatches=3)
    with pytest.raises(BadInput, match="2 boundaries, and there are 3 hop times"):
        dag.build(order, (0.1, 0.1, 0.1))


def test_a_stage_on_another_rank_than_said_is_refused() -> None:
    order = order_of("1F1B", ranks=2, microbatches=2)
    with pytest.raises(BadInput, match="does not hold stage 0"):
        dag.build(replace(order, placement=Placement((1, 0))))
