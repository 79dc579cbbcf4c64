"""From samples to lines: exact without noise, unmoved by outliers, sensible where too little is known."""

from __future__ import annotations

import random

import pytest

from frazil_jobs.training.freezing.timing import Sample, Samples, fit, merged, timings
from frazil_jobs.training.planning.actions import Action, Kind
from frazil_jobs.training.planning.schedules import order_of


def points(full: float, frozen: float, shares: list[float]) -> list[tuple[float, float]]:
    return [(share, full - share * (full - frozen)) for share in shares]


def test_a_line_without_noise_is_found_exactly():
    assert fit(Kind.B, 1, points(0.042, 0.020, [0, 0.5, 1, 0, 0.5])) == pytest.approx((0.042, 0.020), rel=1e-12)


def test_a_quarter_of_outliers_does_not_move_the_line():
    rng = random.Random(1)
    good = points(0.042, 0.020, [rng.random() for _ in range(90)])
    bad = [(rng.random(), 0.042 * rng.uniform(2, 20)) for _ in range(30)]
    full, frozen = fit(Kind.B, 1, good + bad)
    assert full == pytest.approx(0.042, rel=0.05)
    assert frozen == pytest.approx(0.020, rel=0.12)


def test_forward_does_not_depend_on_what_is_frozen():
    assert fit(Kind.F, 1, [(0.0, 3.0), (1.0, 1.0), (0.5, 2.0)]) == (2.0, 2.0)


def test_without_any_frozen_sample_half_of_a_backward_remains_and_nothing_of_the_first_stages():
    assert fit(Kind.B, 2, [(0.0, 4.0)]) == (4.0, 2.0)
    assert fit(Kind.B, 0, [(0.0, 4.0)]) == (4.0, 0.0)
    assert fit(Kind.W, 2, [(0.0, 4.0)]) == (4.0, 0.0)


def test_without_spread_the_saving_of_the_plan_before_counts():
    full, frozen = fit(Kind.B, 1, [(0.5, 3.0)] * 3, earlier=(2.0, 1.0))
    assert (full, frozen) == pytest.approx((4.0, 2.0))
    assert full - 0.5 * (full - frozen) == pytest.approx(3.0)


def test_time_never_grows_by_freezing():
    full, frozen = fit(Kind.B, 1, points(1.0, 1.5, [0, 0.5, 1]))
    assert frozen <= full


def test_of_replicas_the_slowest_counts():
    assert merged([{"1B": (4.0, 2.0)}, {"1B": (3.0, 2.5), "0F": (1.0, 1.0)}]) == {"1B": (4.0, 2.5), "0F": (1.0, 1.0)}


def test_old_samples_make_room_for_new_ones_of_the_same_frozen_share_only():
    samples = Samples(kept=4)
    samples.add(Sample(Action(Kind.B, 1, 0), 0.0, 2.0) for _ in range(3))
    samples.add(Sample(Action(Kind.B, 1, 3), 1.0, 1.0) for _ in range(50))
    assert samples.lines()["1B"] == pytest.approx((2.0, 1.0))


@pytest.mark.parametrize("by_action", [False, True])
def test_samples_come_back_from_their_state(by_action):
    samples = Samples(by_action=by_action)
    rng = random.Random(2)
    samples.add(
        Sample(Action(Kind(kind), stage, number % 12), rng.random(), rng.random())
        for kind in "FB" for stage in (0, 10) for number in range(99)
    )  # fmt: skip
    again = Samples(by_action=by_action)
    again.load_state_dict(samples.state_dict())
    assert again.lines() == samples.lines()
    assert again.state_dict() == samples.state_dict()


def test_every_action_of_an_order_gets_its_time():
    order = order_of("ZBH1", ranks=2, microbatches=4)
    groups = {f"{action.stage}{action.kind}": (2.0, 1.0) for action in order.actions}
    made = timings(order, groups, hop_seconds=0.25)
    assert set(made.actions) == set(order.actions)
    assert made.hop_seconds == (0.25,)


def test_as_published_each_action_has_its_own_medians():
    samples = Samples(by_action=True)
    for microbatch, slower in ((0, 1.0), (1, 2.0)):
        for noise in (0.9, 1.0, 5.0):
            samples.add([Sample(Action(Kind.F, 1, microbatch), 0.0, slower * noise)])
            samples.add([Sample(Action(Kind.B, 1, microbatch), 0.0, 2 * slower * noise)])
            samples.add([Sample(Action(Kind.B, 1, microbatch), 0.9, slower * noise)])
    assert samples.lines() == {"1F0": (1.0, 1.0), "1F1": (2.0, 2.0), "1B0": (2.0, 1.0), "1B1": (4.0, 2.0)}
    order = order_of("1F1B", ranks=2, microbatches=2)
    lines = samples.lines() | {"0F": (3.0, 3.0), "0B": (6.0, 0.0)}
    made = timings(order, lines, hop_seconds=0.0).actions
    assert [made[Action(Kind.B, 1, m)].full for m in (0, 1)] == [2.0, 4.0]
    assert [made[Action(Kind.B, 0, m)].full for m in (0, 1)] == [6.0, 6.0]
