"""Which samplers can take a step with a prediction that isn't exact, told from what a scheduler does.

A sampler that draws noise in each step loses the image when a step changes a little (a measured 99 % of SDE-DPM++ samples
become others); one that calls the denoiser several times a step mixes whole and approximate calls in one step. For these
the approximate modes run exactly, and say so. Both show when a tiny latent is walked through a few steps (milliseconds):
with another seed it ends elsewhere, and there are more calls than steps.
"""

from __future__ import annotations

import functools
import inspect
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

_STEPS: Final = 8
"""Of a walk: some schedulers draw in the middle of their times alone."""


@dataclass(frozen=True, kw_only=True)
class _Walks:
    """What two walks showed that differ in nothing but the seed."""

    draws: bool
    several: bool
    """More calls than steps. (PNDM's way to begin takes one more in all.)"""


def hindrance(kind: Any, config: Mapping[str, Any], extra: Mapping[str, Any]) -> str | None:
    """Why `kind` can't take approximate steps, as a clause for people, or None. `extra`: arguments of the call (`eta`)."""
    # A seed of the scheduler's own would hide that it draws.
    seedless = {name: value for name, value in config.items() if not name.endswith("_seed")}
    values, eta = json.dumps(seedless, default=str), extra.get("eta")
    found = _walked(kind, values, eta)
    if found is None:
        return f"{kind.__name__} takes its steps in a way of its own"
    if found.draws:
        without = _walked(kind, values, None)
        if eta and without is not None and not without.draws:
            return "eta is above 0, so noise is drawn in each step"
        return f"{kind.__name__} draws noise in each step"
    return f"{kind.__name__} calls the denoiser several times a step" if found.several else None


def in_steps(kind: Any, config: Mapping[str, Any]) -> Any:
    """A scheduler of class `kind`, set to a few steps."""
    known = inspect.signature(kind.__init__).parameters
    scheduler = kind.from_config({name: value for name, value in config.items() if name in known})
    shift = {"mu": 0.5} if scheduler.config.get("use_dynamic_shifting") else {}  # of the picture's size; any does
    scheduler.set_timesteps(_STEPS, **shift)
    return scheduler


@functools.lru_cache(maxsize=64)
def _walked(kind: Any, values: str, eta: float | None) -> _Walks | None:
    """None for a scheduler that doesn't walk as others do: it wants other arguments, or has no step."""
    try:
        calls, end = _walk(kind, values, eta, seed=0)
        _, other = _walk(kind, values, eta, seed=1)
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ImportError):
        return None
    return _Walks(draws=not torch.allclose(end, other, equal_nan=True), several=calls > _STEPS + 1)


def _walk(kind: Any, values: str, eta: float | None, *, seed: int) -> tuple[int, torch.Tensor]:
    """Calls of the denoiser, and the latent after them."""
    scheduler = in_steps(kind, json.loads(values))
    names = inspect.signature(scheduler.step).parameters
    arguments: dict[str, Any] = {"return_dict": False}
    if "generator" in names:
        arguments["generator"] = torch.Generator().manual_seed(seed)
    if "eta" in names and eta is not None:
        arguments["eta"] = float(eta)
    latent = torch.ones(1, 3, 4, 4)  # three channels: where a scheduler also looks for a variance, it keeps as many
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        for time in scheduler.timesteps:
            given = scheduler.scale_model_input(latent, time) if hasattr(scheduler, "scale_model_input") else latent
            latent = scheduler.step(given / 2, time, latent, **arguments)[0]
    return len(scheduler.timesteps), latent
