"""The state machine of freezing, driven on paper: its times are those of a machine that only the test knows."""

from __future__ import annotations

import json

import pytest

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.freezing.controller import PATIENCE, WATCH_EVERY, Controller, Phase
from frazil_jobs.training.freezing.injected import InjectedTimes
from frazil_jobs.training.freezing.plans import Notes, Reason
from frazil_jobs.training.freezing.timing import Sample, Samples, fitted_hop
from frazil_jobs.training.planning.program import FreezingSettings, solve
from frazil_jobs.training.planning.schedules import order_of
from frazil_jobs.training.planning.simulator import simulate
from frazil_jobs.training.planning.timings import StageTime, Timings

ORDER = order_of("1F1B", ranks=4, microbatches=8)
STAGES = [
    StageTime(forward=0.0138, backward=0.0428, backward_frozen=0.0),
    StageTime(forward=0.0155, backward=0.0450, backward_frozen=0.0204),
    StageTime(forward=0.0135, backward=0.0400, backward_frozen=0.0180),
    StageTime(forward=0.0151, backward=0.0459, backward_frozen=0.0202),
]
TIMES = Timings.of_stages(STAGES, ORDER.order, provenance="emulated", hop_seconds=0.002)


def settings(**given: object) -> Freezing:
    return Freezing(**{"warmup_steps": 5, "monitor_steps": 10, "ramp_steps": 4, **given})  # type: ignore[arg-type]


def drive(controller: Controller, first: int, last: int, *, freezing: Freezing, pace=lambda step: 1.0) -> Samples:
    """Run steps on a machine of TIMES at a pace, as one rank that sees all."""
    machine = InjectedTimes(TIMES, pace)
    samples, spans = Samples(by_action=controller.by_action), []
    for step in range(first, last):
        ratios = controller.ratios(step)
        if controller.measures(step):
            samples.add(
                Sample(a, ratios.get(a, 0.0), machine.seconds(step, a, ratios.get(a, 0.0))) for a in ORDER.actions
            )
            if controller.counts_span(step):
                spans.append(machine.span(step, ORDER, ratios))
        if controller.compares(step):
            spans.sort()
            note = Notes(samples.lines(controller.last_lines), spans[len(spans) // 2])
            spans = []
            if (due := controller.decide(step, [note])) is not None:
                controller.adopt(step, due, solve(ORDER, due.timings, FreezingSettings.of(freezing)))
            if controller.forgets:
                samples.clear()
    return samples


def test_phases_follow_each_other():
    freezing = settings()
    controller = Controller(freezing, ORDER, warmup_steps=99)
    drive(controller, 0, 40, freezing=freezing)
    phases = [controller.phase(step) for step in range(40)]
    assert phases == [Phase.WARMUP] * 5 + [Phase.MONITORING] * 10 + [Phase.RAMP] * 4 + [Phase.STABLE] * 21


def test_the_optimizers_warmup_counts_where_none_is_given():
    controller = Controller(settings(warmup_steps=None), ORDER, warmup_steps=7)
    assert [controller.phase(step) for step in (6, 7)] == [Phase.WARMUP, Phase.MONITORING]


def test_nothing_is_frozen_in_the_warmup_and_monitoring_stays_within_the_largest_ratio():
    for most in ("0", "0.05", "0.3"):
        controller = Controller(settings(max_freeze_ratio=most, monitor_steps=1000), ORDER, warmup_steps=0)
        assert not any(controller.ratios(4).values())
        ratios = [controller.ratios(step) for step in range(5, 1005)]
        for stage in range(4):
            mine = [ratio for step in ratios for action, ratio in step.items() if action.stage == stage]
            assert sum(mine) / len(mine) <= float(most) + 1e-3
            assert any(mine) == (most != "0")


def test_regression_without_a_probe_finds_the_machines_times():
    freezing = settings()
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 16, freezing=freezing)
    (planned,) = controller.log
    for action, time in TIMES.actions.items():
        assert planned.timings.actions[action].full == pytest.approx(time.full, rel=1e-9)
        assert planned.timings.actions[action].frozen == pytest.approx(time.frozen, rel=1e-9, abs=1e-12)


def test_the_published_probe_freezes_everything_in_the_second_half_of_monitoring():
    freezing = settings(probe="AllFrozen")
    controller = Controller(freezing, ORDER, warmup_steps=0)
    assert {r for step in range(5, 15) for r in controller.ratios(step).values()} == {0.0}
    assert {r for step in range(15, 25) for r in controller.ratios(step).values()} == {1.0}
    drive(controller, 0, 26, freezing=freezing)
    (planned,) = controller.log
    assert planned.step == 25
    assert planned.timings.hop_seconds[0] == pytest.approx(0.002, rel=1e-4)


@pytest.mark.parametrize(
    ("changed", "published"),
    [
        ({}, True),
        ({"probe": "Regression"}, False),
        ({"slack_percent": "1"}, False),
        ({"replan_drift_percent": "3"}, False),
    ],
)
def test_a_plan_as_published_is_made_from_the_actions_own_times_without_communication(changed, published):
    freezing = settings(
        **{"selection": "Uniform", "slack_percent": "0", "probe": "AllFrozen", "replan_drift_percent": "0", **changed}
    )
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 26, freezing=freezing)
    timings = controller.log[0].timings
    assert (timings.hop_seconds == (0.0, 0.0, 0.0)) is published
    if published:
        assert timings.actions == TIMES.actions
        assert controller.log[0].plan == solve(
            ORDER, TIMES.model_copy(update={"hop_seconds": (0.0, 0.0, 0.0)}), FreezingSettings.published(0.3)
        )


def test_the_ramp_goes_from_nothing_to_the_plan():
    freezing = settings()
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 16, freezing=freezing)
    plan = controller.log[0].plan.ratios
    assert max(plan.values()) > 0
    for step, share in ((15, 0.25), (16, 0.5), (17, 0.75), (18, 1.0), (100, 1.0)):
        assert controller.ratios(step) == pytest.approx({action: share * plan[action] for action in plan})


def test_the_predicted_step_is_the_machines():
    freezing = settings()
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 30, freezing=freezing)
    real = simulate(ORDER, TIMES, controller.ratios(29)).makespan
    assert controller.predicted(29) == pytest.approx(real, rel=0.01)
    assert real < simulate(ORDER, TIMES).makespan


def test_a_steady_machine_is_never_planned_anew():
    freezing = settings()
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 400, freezing=freezing)
    assert [entry.reason for entry in controller.log] == [Reason.MONITORED]


def test_one_slow_minute_is_no_reason_to_plan_anew():
    freezing = settings()
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 400, freezing=freezing, pace=lambda step: 1.5 if 100 <= step < 100 + WATCH_EVERY else 1.0)
    assert len(controller.log) == 1


def test_a_slower_machine_gets_a_new_prediction_and_keeps_ratios_that_are_still_the_best():
    freezing = settings()
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 600, freezing=freezing, pace=lambda step: 1.2 if step >= 100 else 1.0)
    first, second = controller.log
    assert second.reason is Reason.KEPT
    assert second.plan.ratios == first.plan.ratios
    assert second.plan.makespan == pytest.approx(1.2 * first.plan.makespan, rel=0.02)
    assert second.step >= 100 + (PATIENCE - 1) * WATCH_EVERY


def test_when_another_stage_becomes_the_slowest_the_ratios_move_by_a_ramp():
    freezing = settings()
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 16, freezing=freezing)
    first = controller.log[0]
    slower = [*STAGES[:2], StageTime(forward=0.0135, backward=0.16, backward_frozen=0.018), STAGES[3]]
    machine = InjectedTimes(Timings.of_stages(slower, ORDER.order, provenance="emulated", hop_seconds=0.002))
    lines = {f"{a.stage}{a.kind}": (t.full, t.frozen) for a, t in machine.timings.actions.items()}
    span = machine.span(0, ORDER, first.plan.ratios)
    step = next(step for step in range(18, 200) if controller.compares(step))
    for look in range(PATIENCE):
        due = controller.decide(step + look * WATCH_EVERY, [Notes(lines, span)])
        assert (due is not None) == (look == PATIENCE - 1)
    made = solve(ORDER, due.timings, FreezingSettings.of(freezing))
    second = controller.adopt(step, due, made)
    assert second.reason is Reason.DRIFTED
    assert second.plan.makespan < simulate(ORDER, due.timings, first.plan.ratios).makespan / 1.01
    halfway = controller.ratios(step + 2)
    assert controller.phase(step + 2) is Phase.RAMP
    for action, ratio in halfway.items():
        assert ratio == pytest.approx((first.plan.ratios[action] + second.plan.ratios[action]) / 2)


def test_percent_0_keeps_the_first_plan():
    freezing = settings(replan_drift_percent="0")
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 200, freezing=freezing, pace=lambda step: 1.0 + step / 50)
    assert len(controller.log) == 1
    assert not any(controller.compares(step) for step in range(15, 1000))


def test_the_hop_makes_up_for_what_no_action_saw():
    lines = {f"{a.stage}{a.kind}": (t.full, t.frozen) for a, t in TIMES.actions.items()}
    measured = simulate(ORDER, TIMES, {}).makespan
    assert fitted_hop(ORDER, lines, {}, measured) == pytest.approx(0.002, rel=1e-6)
    assert fitted_hop(ORDER, lines, {}, 0.5 * measured) == 0.0
    assert fitted_hop(ORDER, lines, {}, None) == 0.0


@pytest.mark.parametrize("cut", [3, 9, 16, 17, 60, 128, 140])
def test_a_controller_goes_on_from_its_state_as_if_nothing_had_happened(cut):
    freezing = settings()

    def pace(step: int) -> float:
        return 1.2 if step >= 100 else 1.0

    whole = Controller(freezing, ORDER, warmup_steps=0)
    drive(whole, 0, 300, freezing=freezing, pace=pace)
    before = Controller(freezing, ORDER, warmup_steps=0)
    drive(before, 0, cut, freezing=freezing, pace=pace)
    after = Controller(freezing, ORDER, warmup_steps=0)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after.state_dict() == before.state_dict()
    for step in range(cut, cut + 5):
        if [entry for entry in whole.log if entry.step <= step] == before.log:
            assert after.ratios(step) == whole.ratios(step)
            assert after.phase(step) == whole.phase(step)


def test_a_replay_takes_the_same_plans_at_the_same_steps_and_measures_nothing():
    freezing = settings()
    whole = Controller(freezing, ORDER, warmup_steps=0)
    drive(whole, 0, 300, freezing=freezing, pace=lambda step: 1.2 if step >= 100 else 1.0)
    assert len(whole.log) == 2
    log = json.loads(json.dumps([entry.to_json() for entry in whole.log]))
    again = Controller(freezing, ORDER, warmup_steps=0, replay=log)
    for step in range(300):
        assert again.ratios(step) == whole.ratios(step)
        assert again.phase(step) == whole.phase(step)
        assert not again.measures(step)
        assert not again.compares(step)


def test_plans_of_another_schedule_are_refused():
    freezing = settings()
    controller = Controller(freezing, ORDER, warmup_steps=0)
    drive(controller, 0, 20, freezing=freezing)
    other = Controller(freezing, order_of("1F1B", ranks=2, microbatches=8), warmup_steps=0)
    with pytest.raises(BadConfiguration, match=r"parallelism.*another schedule"):
        other.load_state_dict(controller.state_dict())
