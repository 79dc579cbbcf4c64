"""The optimizer of a spec, its learning rate as a function of the step, and the running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from frazil_jobs.api.trainingjob import Optimizer

_EMA_WARMUP: Final = 10
"""The decay is at most (1 + t) / (10 + t): the mean of a young run isn't that of its start."""


def make_optimizer(settings: Optimizer, weights: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, with decoupled weight decay, or SGD, with that of its gradient. Vectors (biases, gains of norms) have none.

    A tensor whose gradient is None is left alone, with its state: one that was frozen in all of a step.
    """
    decay = float(settings.weight_decay)
    groups = [
        {"params": [weight for weight in weights.values() if weight.ndim >= 2], "weight_decay": decay},
        {"params": [weight for weight in weights.values() if weight.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    peak = float(settings.learning_rate)
    first, second = (float(beta) for beta in settings.betas)
    if settings.name == "SGD":
        return torch.optim.SGD(groups, lr=peak, momentum=first)
    return torch.optim.AdamW(groups, lr=peak, betas=(first, second))


def learning_rate(settings: Optimizer, step: int, steps: int) -> float:
    """The learning rate of step `step` (from 0) of `steps`: a line to the peak, then as `schedule` says."""
    peak, warmup = float(settings.learning_rate), settings.warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.schedule == "Constant":
        return peak
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (1 - done) if settings.schedule == "Linear" else peak * 0.5 * (1 + math.cos(math.pi * done))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For the step to come."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class Ema:
    """A running mean of the weights, in float32 beside them: mean = d * mean + (1 - d) * weights after each step."""

    def __init__(self, weights: Mapping[str, nn.Parameter], decay: float) -> None:
        self._weights = dict(weights)
        self._decay = decay
        self.means = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step `step` (from 0)."""
        decay = min(self._decay, (1 + step) / (_EMA_WARMUP + step))
        average: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self.means.values()), [weight.detach() for weight in self._weights.values()], None)

    @contextmanager
    @torch.no_grad()
    def in_place(self) -> Iterator[None]:
        """While the block runs, the weights are their means."""
        kept = {name: weight.detach().clone() for name, weight in self._weights.items()}
        for name, weight in self._weights.items():
            weight.copy_(self.means[name])
        try:
            yield
        finally:
            for name, weight in self._weights.items():
                weight.copy_(kept[name])
