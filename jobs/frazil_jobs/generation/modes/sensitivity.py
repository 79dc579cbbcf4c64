"""How much a wrong prediction at each step moves the final latent: the scheduler's own coefficients.

Every scheduler served here walks one ordinary differential equation. In coordinates in which the latent is x0 + s·noise
(variance-exploding; s = sigma / alpha) a step from s_i to s_{i+1} adds (s_{i+1} - s_i)·noise, so a wrong prediction of the
noise moves the latent by |s_{i+1} - s_i| times its error. For flow matching the same holds with sigma and the velocity.

The later steps shrink it as they shrink noise: exactly as the marginal's standard deviation does, for data of a normal
distribution of variance 1, sqrt(1 + s²) here and sqrt((1 - sigma)² + sigma²) for flow matching. In a variance-preserving
schedule what is left is the angle that a step turns the latent by.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch

from frazil_jobs.generation.load import is_flow


class NotKnown(Exception):
    """Nothing is known of a scheduler's coefficients. The text is a clause for people."""


def sensitivities(scheduler: Any, *, steps: int) -> list[float]:
    """Of each of the last `steps` time steps that `scheduler` is set to. Raises NotKnown."""
    name = type(scheduler).__name__
    flow = is_flow(name, scheduler.config)
    levels = _levels(scheduler, flow=flow)
    if len(levels) <= steps:
        raise NotKnown(f"{name} has {len(levels)} noise levels for {steps} steps")
    levels = levels[len(levels) - steps - 1 :]
    kind = "flow_prediction" if flow else scheduler.config.get("prediction_type", "epsilon")
    return [
        abs(after - before) * _of_noise(kind, before) / _deviation(after, flow=flow)
        for before, after in pairwise(levels)
    ]


def _levels(scheduler: Any, *, flow: bool) -> list[float]:
    """Noise levels before each step, and the last one after all of them."""
    timesteps = scheduler.timesteps
    sigmas = getattr(scheduler, "sigmas", None)
    if isinstance(sigmas, torch.Tensor) and len(sigmas) == len(timesteps) + 1:
        return [float(sigma) for sigma in sigmas.double().tolist()]
    table = getattr(scheduler, "alphas_cumprod", None)
    if flow or not isinstance(table, torch.Tensor):
        raise NotKnown(f"nothing is known of the noise levels of {type(scheduler).__name__}")
    kept = [float(value) for value in table.double()[timesteps.long().cpu()].tolist()]
    last = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return [((1 - alpha) / alpha) ** 0.5 if alpha > 0 else float("inf") for alpha in [*kept, last]]


def _deviation(level: float, *, flow: bool) -> float:
    """Of the latent at a noise level, when the data's is 1."""
    signal = 1 - level if flow else 1.0
    return math.hypot(signal, level)


def _of_noise(kind: str, level: float) -> float:
    """How much the implied noise is wrong when the prediction is wrong by one, at a noise level."""
    if kind == "v_prediction":
        return float((1 + level**2) ** -0.5)
    if kind == "sample":
        return 1 / level if level > 0 else 0.0
    return 1.0
