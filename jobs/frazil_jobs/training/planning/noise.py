"""What timing noise does to a step: its makespan over many steps in which every action takes a little longer or shorter.

A makespan is a maximum over paths, so noise makes steps longer on average, and the more so the more paths are critical: a
plan that shortens one path to exactly the length of the others pays for it here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from frazil_jobs.training.planning import dag, simulator
from frazil_jobs.training.planning.actions import Action
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.timings import Timings

QUANTILES: Final = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Spread:
    """Makespans of noisy steps, in seconds."""

    noiseless: float
    mean: float
    quantiles: Mapping[float, float]


def makespans(
    order: ScheduleOrder,
    timings: Timings,
    ratios: Mapping[Action, float] = simulator.NOTHING_FROZEN,
    *,
    sigma: float,
    rank_sigma: float = 0.0,
    steps: int = 1000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """The makespans of `steps` noisy steps, the same for the same seed; shape (steps,), seconds.

    Every action's time is multiplied by a log-normal factor of mean 1: `sigma` is the standard deviation of its logarithm,
    drawn anew for each action; `rank_sigma` that of a factor common to a rank for a whole step (a device that throttles).
    """
    graph = dag.build(order, timings.hop_seconds)
    seconds = simulator.seconds_of(graph, timings, ratios)
    generator = np.random.default_rng(seed)
    factors = _lognormal(generator, sigma, (len(seconds), steps))
    factors *= _lognormal(generator, rank_sigma, (len(order.order), steps))[list(graph.ranks)]
    _, ends = simulator.run(graph, seconds[:, None] * factors)
    return np.asarray(ends.max(axis=0))


def spread(
    order: ScheduleOrder,
    timings: Timings,
    ratios: Mapping[Action, float] = simulator.NOTHING_FROZEN,
    *,
    sigma: float,
    rank_sigma: float = 0.0,
    steps: int = 1000,
    seed: int = 0,
    quantiles: Sequence[float] = QUANTILES,
) -> Spread:
    """Mean and quantiles of `makespans`."""
    found = makespans(order, timings, ratios, sigma=sigma, rank_sigma=rank_sigma, steps=steps, seed=seed)
    return Spread(
        noiseless=simulator.simulate(order, timings, ratios).makespan,
        mean=float(found.mean()),
        quantiles=dict(zip(quantiles, map(float, np.quantile(found, quantiles)), strict=True)),
    )


def noisy(timings: Timings, *, sigma: float, seed: int = 0) -> Timings:
    """Timings as a run with noise would have recorded them: every action's seconds multiplied by a factor of its own."""
    generator = np.random.default_rng(seed)
    factors = _lognormal(generator, sigma, (len(timings.actions), 1))[:, 0]
    scaled = {
        action: timings.actions[action].scaled(float(factor))
        for action, factor in zip(sorted(timings.actions), factors, strict=True)
    }
    return timings.model_copy(update={"actions": scaled})


def _lognormal(generator: np.random.Generator, sigma: float, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Factors of mean 1."""
    return np.exp(generator.normal(-(sigma**2) / 2, sigma, shape))
