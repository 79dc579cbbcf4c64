"""Noise: seeded, of mean 1, and never to a plan's advantage on average."""

from __future__ import annotations

import numpy as np
import pytest
from planning_cases import SCHEDULES, random_timings

from frazil_jobs.training.planning.noise import makespans, noisy, spread
from frazil_jobs.training.planning.program import FreezingSettings, solve
from frazil_jobs.training.planning.schedules import order_of
from frazil_jobs.training.planning.simulator import simulate
from frazil_jobs.training.planning.timings import StageTime, Timings


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_noise_every_step_takes_the_simulated_time(schedule) -> None:
    order = order_of(schedule, ranks=3, microbatches=6)
    timings = random_timings(order, 2, hop=0.5)
    found = makespans(order, timings, sigma=0.0, steps=5)
    assert found == pytest.approx([simulate(order, timings).makespan] * 5)


def test_the_same_seed_gives_the_same_steps_and_another_seed_others() -> None:
    order = order_of("1F1B", ranks=3, microbatches=6)
    timings = random_timings(order, 2)
    first, again, other = (makespans(order, timings, sigma=0.1, steps=20, seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_each_noisy_step_is_that_of_the_simulator() -> None:
    """One action a rank: the noise of a step can be read off its makespan, and given to the simulator."""
    order = order_of("GPipe", ranks=1, microbatches=1)
    stage = StageTime(forward=1.0, backward=0.0, backward_frozen=0.0)
    timings = Timings.of_stages((stage,), order.order, provenance="emulated")
    found = makespans(order, timings, sigma=0.2, steps=20_000)
    assert found.mean() == pytest.approx(1.0, abs=0.01)
    assert np.log(found).std() == pytest.approx(0.2, abs=0.01)


def test_a_slow_rank_is_slow_for_the_whole_step() -> None:
    """Noise of actions averages out over a rank; that of a rank does not."""
    order = order_of("GPipe", ranks=1, microbatches=64)
    stage = StageTime(forward=1.0, backward=2.0, backward_frozen=0.0)
    timings = Timings.of_stages((stage,), order.order, provenance="emulated")
    alone = makespans(order, timings, sigma=0.1, steps=500)
    common = makespans(order, timings, sigma=0.0, rank_sigma=0.1, steps=500)
    assert common.std() > 4 * alone.std()


def test_noise_makes_steps_longer_on_average_since_they_are_maxima() -> None:
    order = order_of("1F1B", ranks=4, microbatches=8)
    stages = (StageTime(forward=1, backward=2, backward_frozen=1),) * 4
    timings = Timings.of_stages(stages, order.order, provenance="emulated")
    found = spread(order, timings, sigma=0.05, steps=400)
    assert found.mean > found.noiseless
    assert found.quantiles[0.05] < found.quantiles[0.5] < found.quantiles[0.95]


def test_a_plan_on_averages_does_not_follow_the_noise_of_its_timings() -> None:
    """What slack and averages are for: less freezing asked for, and less scatter from one recording to the next."""
    order = order_of("1F1B", ranks=4, microbatches=8)
    stages = [StageTime(forward=1, backward=3, backward_frozen=1.4 * (stage > 0)) for stage in range(4)]
    clean = Timings.of_stages(stages, order.order, provenance="emulated")
    recorded = [noisy(clean, sigma=0.02, seed=seed) for seed in range(6)]
    asked = {
        name: np.array([solve(order, timings, settings).mean_freeze_ratio for timings in recorded])
        for name, settings in (
            ("published", FreezingSettings.published(0.8)),
            ("ours", FreezingSettings(max_ratio=0.8)),
        )
    }
    assert asked["ours"].max() < asked["published"].min()
    assert np.ptp(asked["ours"]) < np.ptp(asked["published"])
