"""The simulator against a machine of ranks that really wait, and its account of a step."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as some
from planning_cases import SCHEDULES, random_timings, steps

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning.actions import Action, Kind
from frazil_jobs.training.planning.schedules import ScheduleOrder, order_of
from frazil_jobs.training.planning.simulator import simulate
from frazil_jobs.training.planning.timings import StageTime, Timings


def machine(order: ScheduleOrder, timings: Timings, ratios: dict[Action, float]) -> dict[Action, tuple[float, float]]:
    """Discrete events: ranks, mailboxes and a clock. Knows no DAG and no longest path."""
    placement = order.placement
    arrived: set[tuple[str, int, int]] = {("input", 0, m) for m in range(order.microbatches)}
    arrived |= {("gradient", order.stages - 1, m) for m in range(order.microbatches)}
    at = [0] * len(order.order)
    busy = [False] * len(order.order)
    spans: dict[Action, tuple[float, float]] = {}
    events: list[tuple[float, int, str, object]] = []
    clock, tie = 0.0, 0

    def ready(action: Action) -> bool:
        if action.kind is Kind.F:
            return ("input", action.stage, action.microbatch) in arrived
        if action.kind is Kind.W:
            return True
        return ("gradient", action.stage, action.microbatch) in arrived

    while True:
        for rank, actions in enumerate(order.order):
            if not busy[rank] and at[rank] < len(actions) and ready(actions[at[rank]]):
                action = actions[at[rank]]
                end = clock + timings.actions[action].at(ratios.get(action, 0.0))
                spans[action] = (clock, end)
                busy[rank] = True
                tie += 1
                heapq.heappush(events, (end, tie, "done", (rank, action)))
        if not events:
            return spans
        clock, _, what, payload = heapq.heappop(events)
        if what == "mail":
            arrived.add(payload)  # type: ignore[arg-type]
            continue
        rank, action = payload  # type: ignore[misc]
        busy[rank] = False
        at[rank] += 1
        to = {Kind.F: 1, Kind.B: -1, Kind.I: -1, Kind.W: 0}[action.kind]
        if to and 0 <= action.stage + to < order.stages:
            lower = min(action.stage, action.stage + to)
            late = timings.hop_seconds[lower] if placement.crosses_ranks(lower) else 0.0
            tie += 1
            mail = ("input" if to == 1 else "gradient", action.stage + to, action.microbatch)
            heapq.heappush(events, (clock + late, tie, "mail", mail))


@given(steps(), some.randoms(use_true_random=False))
def test_a_machine_of_ranks_and_mailboxes_keeps_the_same_times(step, random) -> None:
    order, timings = step
    ratios = {action: random.random() for action in order.actions if action.kind.freezable}
    timeline = simulate(order, timings, ratios)
    real = machine(order, timings, ratios)
    assert {action: span.start for action, span in timeline.spans.items()} == pytest.approx(
        {action: start for action, (start, _) in real.items()}
    )
    assert timeline.makespan == pytest.approx(max(end for _, end in real.values()))


@given(steps())
def test_the_critical_path_fills_the_step_and_only_it_can_stretch_it(step) -> None:
    order, timings = step
    timeline = simulate(order, timings)
    path = timeline.critical_path
    on_the_way = timeline.makespan - sum(timings.actions[action].full for action in path)
    assert timeline.spans[path[0]].start == 0
    assert timeline.spans[path[-1]].end == timeline.makespan
    assert -1e-9 <= on_the_way <= sum(timings.hop_seconds) * 2 * len(path) + 1e-9
    for action in (path[0], path[len(path) // 2], path[-1]):
        time = timings.actions[action]
        slower = time.model_copy(update={"full": time.full + 0.25, "frozen": time.frozen + 0.25})
        stretched = timings.model_copy(update={"actions": {**timings.actions, action: slower}})
        assert simulate(order, stretched).makespan == pytest.approx(timeline.makespan + 0.25)


def test_equal_stages_give_the_bubble_of_the_textbook() -> None:
    for ranks, microbatches in ((2, 4), (4, 8), (4, 16)):
        stages = (StageTime(forward=1, backward=2, backward_frozen=1),) * ranks
        for schedule in ("GPipe", "1F1B"):
            order = order_of(schedule, ranks=ranks, microbatches=microbatches)
            timeline = simulate(order, Timings.of_stages(stages, order.order, provenance="emulated"))
            assert timeline.makespan == pytest.approx(3 * (microbatches + ranks - 1))
            assert timeline.bubble_share == pytest.approx((ranks - 1) / (microbatches + ranks - 1))


def test_a_split_backward_makes_the_bubble_smaller_and_zbv_smaller_still() -> None:
    whole = (StageTime(forward=1, backward=2, backward_frozen=1),) * 4
    halves = (StageTime(forward=0.5, backward=1, backward_frozen=0.5),) * 8
    makespans = {}
    for schedule, stages in (("1F1B", whole), ("Interleaved1F1B", halves), ("ZBH1", whole), ("ZBV", halves)):
        order = order_of(schedule, ranks=4, microbatches=8)
        makespans[schedule] = simulate(order, Timings.of_stages(stages, order.order, provenance="emulated")).makespan
    assert makespans["1F1B"] > makespans["Interleaved1F1B"] > makespans["ZBV"]
    assert makespans["1F1B"] > makespans["ZBH1"] > makespans["ZBV"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_slower_links_never_shorten_a_step(schedule) -> None:
    order = order_of(schedule, ranks=3, microbatches=6)
    timings = random_timings(order, 5)
    makespans = [
        simulate(order, timings.model_copy(update={"hop_seconds": (hop,) * (order.stages - 1)})).makespan
        for hop in (0.0, 0.1, 1.0, 5.0)
    ]
    assert makespans == sorted(makespans)
    assert makespans[0] < makespans[-1]


def test_timings_of_another_order_are_refused() -> None:
    order = order_of("1F1B", ranks=2, microbatches=4)
    fewer = random_timings(order_of("1F1B", ranks=2, microbatches=3), 0)
    with pytest.raises(BadInput, match=r"no time for .F3 and 3 other actions"):
        simulate(order, fewer)


@pytest.mark.parametrize(
    "ratios", [{Action(Kind.F, 0, 0): 0.5}, {Action(Kind.B, 0, 0): 1.5}, {Action(Kind.B, 7, 0): 0.5}]
)
def test_ratios_of_what_cannot_be_frozen_are_refused(ratios) -> None:
    order = order_of("1F1B", ranks=2, microbatches=2)
    with pytest.raises(BadInput, match="freeze ratio"):
        simulate(order, random_timings(order, 0), ratios)
