"""The linear program against the simulator, brute force and its own dual; and what a plan must keep."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from planning_cases import SCHEDULES, random_timings, steps

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning import dag
from frazil_jobs.training.planning.actions import Action, Kind
from frazil_jobs.training.planning.constraints import constraints_of
from frazil_jobs.training.planning.program import FreezingPlan, FreezingSettings, plan_of, solve, uniform
from frazil_jobs.training.planning.schedules import ScheduleOrder, order_of
from frazil_jobs.training.planning.simulator import run, seconds_of, simulate
from frazil_jobs.training.planning.timings import ActionTime, StageTime, Timings

ratio = some.sampled_from((0.0, 0.1, 0.3, 0.5, 0.8, 1.0))
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
EXACT = FreezingSettings(slack=0.0, stage_averaged=False, trains_all=False)


def least_makespan(order: ScheduleOrder, timings: Timings, cap: float) -> float:
    """What the linear program alone says."""
    found = constraints_of(dag.build(order, timings.hop_seconds), timings, (cap,) * order.stages)
    return found.minimise(found.costs({found.makespan: 1.0})).fun * found.unit


def exact(max_ratio: float, **more) -> FreezingSettings:
    return EXACT.model_copy(update={"max_ratio": max_ratio, **more})


@settings(max_examples=40)
@given(steps(), ratio)
def test_the_optimum_is_the_longest_path_of_its_own_plan(step, cap: float) -> None:
    order, timings = step
    least = least_makespan(order, timings, cap)
    for objective in ("Lexicographic", "Published"):
        plan = solve(order, timings, exact(cap, objective=objective))
        assert plan.makespan == pytest.approx(least, rel=1e-9)
        assert simulate(order, timings, plan.ratios).makespan == plan.makespan


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("objective", ["Lexicographic", "Published"])
def test_every_schedule_has_a_plan_that_the_simulator_confirms(schedule, objective) -> None:
    order = order_of(schedule, ranks=4, microbatches=8)
    for seed in range(3):
        timings = random_timings(order, seed, hop=0.5)
        plan = solve(order, timings, exact(0.5, objective=objective))
        assert plan.makespan == pytest.approx(least_makespan(order, timings, 0.5), rel=1e-9)
        assert plan.makespan < plan.makespan_unfrozen


def whole_numbers(order: ScheduleOrder, seed: int) -> Timings:
    """Whole seconds, 4 of which freezing saves anywhere: the best plans have ratios that are quarters."""
    generator = np.random.default_rng(seed)
    times = {}
    for action in sorted(order.actions):
        frozen = 0.0 if action.stage == 0 or action.kind is Kind.W else float(generator.integers(2, 9))
        times[action] = ActionTime(full=frozen + 4, frozen=frozen if action.kind.freezable else frozen + 4)
    return Timings(provenance="emulated", actions=times, hop_seconds=(float(generator.integers(0, 3)),))


@pytest.mark.parametrize("schedule", ["GPipe", "1F1B", "ZBH1"])
def test_no_plan_of_a_grid_is_better_and_the_best_is_met_where_the_optimum_is_on_it(schedule) -> None:
    order = order_of(schedule, ranks=2, microbatches=2)
    freezable = sorted(action for action in order.actions if action.kind.freezable)
    grid = [dict(zip(freezable, quarters, strict=True)) for quarters in itertools.product(QUARTERS, repeat=4)]
    graph = dag.build(order)
    met = 0
    for seed in range(5):
        for timings in (whole_numbers(order, seed), random_timings(order, seed, hop=0.3)):
            seconds = np.stack([seconds_of(graph, timings, ratios) for ratios in grid], axis=1)
            makespans = run(dag.build(order, timings.hop_seconds), seconds)[1].max(axis=0)
            for cap in (0.25, 0.5, 1.0):
                best = min(
                    makespan
                    for makespan, ratios in zip(makespans, grid, strict=True)
                    if all(sum(r for a, r in ratios.items() if a.stage == stage) <= 2 * cap for stage in (0, 1))
                )
                plan = solve(order, timings, exact(cap))
                assert plan.makespan <= best + 1e-9
                if all(abs(4 * r - round(4 * r)) < 1e-6 for r in plan.ratios.values()):
                    met += 1
                    assert plan.makespan == pytest.approx(best, rel=1e-6)
    assert met >= 8


@settings(max_examples=40)
@given(steps(), ratio)
def test_the_dual_proves_that_nothing_is_better(step, cap: float) -> None:
    order, timings = step
    constraints = constraints_of(dag.build(order, timings.hop_seconds), timings, (cap,) * order.stages)
    costs = constraints.costs({constraints.makespan: 1.0})
    found = constraints.minimise(costs)
    rows, lower, upper = found.ineqlin.marginals, found.lower.marginals, found.upper.marginals
    assert rows.max(initial=0) <= 1e-9
    assert upper.max() <= 1e-9
    assert lower.min() >= -1e-9
    assert costs == pytest.approx(constraints.rows.matrix.T @ rows + lower + upper, abs=1e-9)
    ratios = slice(constraints.starts + 1, None)  # upper bounds of 1; the other columns have none
    bound = np.dot(constraints.rows.limits, rows) + upper[ratios].sum()
    assert found.fun == pytest.approx(bound, rel=1e-9, abs=1e-9)


@settings(max_examples=20)
@given(steps())
def test_a_cap_of_nothing_freezes_nothing_and_a_cap_of_all_is_as_fast_as_all_frozen(step) -> None:
    order, timings = step
    nothing = solve(order, timings, exact(0.0))
    assert nothing.makespan == nothing.makespan_unfrozen == simulate(order, timings).makespan
    assert nothing.mean_freeze_ratio == 0
    everything = solve(order, timings, exact(1.0))
    assert everything.makespan == pytest.approx(everything.makespan_frozen, rel=1e-9)


@settings(max_examples=12)
@given(steps(), some.lists(some.floats(0, 1), min_size=2, max_size=4))
def test_more_freedom_never_makes_a_step_longer(step, caps: list[float]) -> None:
    order, timings = step
    makespans = [solve(order, timings, exact(cap)).makespan for cap in sorted(caps)]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(makespans))


@settings(max_examples=40)
@given(steps(), some.data())
def test_no_stage_exceeds_its_budget(step, data) -> None:
    order, timings = step
    caps = tuple(data.draw(some.lists(some.floats(0, 1), min_size=order.stages, max_size=order.stages)))
    for objective in ("Lexicographic", "Published"):
        plan = solve(order, timings, exact(0.0, stage_max_ratios=caps, objective=objective))
        assert all(mean <= cap + 1e-9 for mean, cap in zip(plan.stage_means, caps, strict=True))
        assert set(plan.ratios) == {action for action in order.actions if action.kind.freezable}


@settings(max_examples=20)
@given(steps(), ratio, some.sampled_from((0.001, 0.01, 0.1)))
def test_slack_buys_less_freezing_for_no_more_than_its_time(step, cap: float, slack: float) -> None:
    order, timings = step
    tight, loose = solve(order, timings, exact(cap)), solve(order, timings, exact(cap, slack=slack))
    assert loose.makespan <= tight.makespan * (1 + slack) * (1 + 1e-9)
    assert loose.mean_freeze_ratio <= tight.mean_freeze_ratio + 1e-9


@settings(max_examples=20)
@given(steps())
def test_the_published_tie_break_freezes_as_little_as_the_exact_two_stages(step) -> None:
    order, timings = step[0], step[1].scaled(0.02)  # the published weight is for actions of some ten milliseconds
    ours, published = solve(order, timings, exact(0.6)), solve(order, timings, exact(0.6, objective="Published"))
    assert published.mean_freeze_ratio == pytest.approx(ours.mean_freeze_ratio, abs=1e-3)


@settings(max_examples=20)
@given(steps(), some.sampled_from((1e-4, 0.125, 3.0, 1e3)))
def test_other_units_of_time_change_no_ratio(step, factor: float) -> None:
    order, timings = step
    plan, scaled = solve(order, timings, EXACT), solve(order, timings.scaled(factor), EXACT)
    assert scaled.makespan == pytest.approx(factor * plan.makespan, rel=1e-9)
    assert scaled.mean_freeze_ratio == pytest.approx(plan.mean_freeze_ratio, abs=1e-8)


@pytest.mark.parametrize("objective", ["Lexicographic", "Published"])
def test_a_stage_off_the_critical_path_is_not_frozen(objective) -> None:
    stages = [StageTime(forward=1, backward=2, backward_frozen=0 if stage == 0 else 1) for stage in range(3)]
    stages[2] = StageTime(forward=20, backward=40, backward_frozen=20)
    order = order_of("1F1B", ranks=3, microbatches=6)
    timings = Timings.of_stages(stages, order.order, provenance="emulated")
    plan = solve(order, timings, exact(0.3, objective=objective))
    assert plan.stage_means[2] == pytest.approx(0.3)
    # After the slow stage's last backward there is nothing left but that of the stages before it.
    hidden = [plan.ratios[Action(Kind.B, stage, microbatch)] for stage in (0, 1) for microbatch in range(5)]
    assert hidden == pytest.approx([0.0] * 10, abs=1e-6)


def test_freezing_goes_where_it_hurts_least() -> None:
    stages = (StageTime(forward=1, backward=2, backward_frozen=1),) * 2
    order = order_of("GPipe", ranks=2, microbatches=1)
    timings = Timings.of_stages(stages, order.order, provenance="emulated")
    for weights, means in (((1.0, 9.0), (0.6, 0.36)), ((9.0, 1.0), (0.36, 0.6))):
        plan = solve(order, timings, exact(0.6, slack=0.05, stage_weights=weights))
        assert plan.makespan == pytest.approx(1.05 * 4.8)
        assert plan.stage_means == pytest.approx(means)


@pytest.mark.parametrize("schedule", ["GPipe", "1F1B", "Interleaved1F1B", "ZBV", "ZBH1"])
def test_a_plan_leaves_every_tensor_a_microbatch_that_trains_it(schedule) -> None:
    order = order_of(schedule, ranks=2, microbatches=4)
    for seed in range(4):
        plan = solve(order, random_timings(order, seed), exact(1.0, trains_all=True))
        of_stage = [[r for action, r in plan.ratios.items() if action.stage == s] for s in range(order.stages)]
        assert min(of_stage[0]) == 0.0
        assert max(map(sum, of_stage)) <= 3 + 1e-9
        assert plan.makespan >= solve(order, random_timings(order, seed), exact(1.0)).makespan


def test_ratios_are_spread_evenly_over_the_microbatches_where_that_costs_nothing() -> None:
    """One stage alone: every microbatch is as critical as the next."""
    order = order_of("GPipe", ranks=1, microbatches=5)
    stage = StageTime(forward=1, backward=2, backward_frozen=0)
    plan = solve(order, Timings.of_stages((stage,), order.order, provenance="emulated"), exact(0.4))
    assert list(plan.ratios.values()) == pytest.approx([0.4] * 5)


def test_averages_are_planned_on_rather_than_noise() -> None:
    order = order_of("1F1B", ranks=4, microbatches=8)
    timings = random_timings(order, 3)
    averaged = FreezingSettings(max_ratio=0.5)
    assert solve(order, timings, averaged) == solve(order, timings.stage_averaged(), averaged)
    assert solve(order, timings, averaged) != solve(order, timings, exact(0.5, slack=0.01))


def test_a_convex_curve_is_planned_as_the_simulator_has_it() -> None:
    order = order_of("1F1B", ranks=2, microbatches=3)
    timings = random_timings(order, 1)
    curved = {
        action: time.model_copy(update={"curve": ((0.3, time.full - 0.7 * time.saving),)})
        if action == Action(Kind.B, 0, 1)
        else time
        for action, time in timings.actions.items()
    }
    timings = timings.model_copy(update={"actions": curved})
    plan = solve(order, timings, exact(0.5))
    assert plan.makespan == pytest.approx(least_makespan(order, timings, 0.5), rel=1e-9)


def test_a_curve_that_is_not_convex_is_refused() -> None:
    order = order_of("1F1B", ranks=2, microbatches=2)
    timings = random_timings(order, 1)
    time = ActionTime(full=2, frozen=0, curve=((0.9, 1.8),))
    bent = timings.model_copy(update={"actions": {**timings.actions, Action(Kind.B, 0, 0): time}})
    with pytest.raises(BadInput, match="falls faster"):
        solve(order, bent, EXACT)


def test_a_model_whose_freezing_saves_nothing_is_not_frozen() -> None:
    order = order_of("ZBH1", ranks=3, microbatches=4)
    stages = (StageTime(forward=1, backward=2, backward_frozen=2),) * 3
    plan = solve(order, Timings.of_stages(stages, order.order, provenance="emulated"), exact(1.0))
    assert plan.mean_freeze_ratio == 0
    assert plan.speedup == plan.speedup_bound == 1


@settings(max_examples=20)
@given(steps())
def test_a_plan_comes_back_from_json_with_the_same_digest(step) -> None:
    plan = solve(*step, FreezingSettings())
    back = FreezingPlan.from_json(plan.to_json())
    assert back == plan
    assert back.digest == plan.digest == solve(*step, FreezingSettings()).digest


def test_the_digest_follows_the_last_bit_of_a_ratio() -> None:
    order = order_of("1F1B", ranks=2, microbatches=2)
    timings = random_timings(order, 0)
    plan = plan_of(order, timings, uniform(order, 0.25))
    moved = dict(plan.ratios) | {Action(Kind.B, 0, 0): float(np.nextafter(0.25, 1))}
    assert plan.model_copy(update={"ratios": moved}).digest != plan.digest


def test_what_is_no_plan_is_refused() -> None:
    with pytest.raises(BadInput, match="no FreezingPlan"):
        FreezingPlan.from_json('{"ratios": {"0B0": 1.5}}')


def test_budgets_of_another_number_of_stages_are_refused() -> None:
    order = order_of("1F1B", ranks=2, microbatches=2)
    with pytest.raises(BadInput, match="3 values for 2 stages"):
        solve(order, random_timings(order, 0), FreezingSettings(stage_max_ratios=(0.1, 0.1, 0.1)))


def test_a_cyclic_order_raises_and_does_not_hang() -> None:
    order = order_of("1F1B", ranks=2, microbatches=2)
    turned = ScheduleOrder(order=(order.order[0], tuple(reversed(order.order[1]))), placement=order.placement, stages=2)
    with pytest.raises(BadInput, match="wait for each other"):
        solve(turned, random_timings(order, 0), FreezingSettings())


def test_a_job_as_published_is_solved_with_the_published_objective() -> None:
    published = FreezingSettings.of(Freezing(selection="Uniform", slack_percent="0", max_freeze_ratio="0.8"))
    assert published == FreezingSettings.published(0.8)
    ours = FreezingSettings.of(Freezing())
    assert (ours.objective, ours.max_ratio, ours.slack, ours.stage_averaged) == ("Lexicographic", 0.3, 0.01, True)


def test_uniform_freezing_has_the_ratio_everywhere() -> None:
    order = order_of("ZBV", ranks=2, microbatches=4)
    plan = plan_of(order, random_timings(order, 0), uniform(order, 0.5))
    assert set(plan.ratios.values()) == {0.5}
    assert plan.stage_means == (0.5,) * 4
    assert plan.gradient_rate == pytest.approx(plan.speedup / 2)
