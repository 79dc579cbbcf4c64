"""Which samplers can take a step with a prediction that isn't exact, told from the scheduler's class and its values.

A sampler that draws noise in each step loses the image when a step changes a little (a measured 99 % of SDE-DPM++ samples
become others); one that calls the denoiser several times a step, or keeps the results of such calls, mixes whole and
approximate calls in one step. For these the approximate modes run exactly, and say so.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

_DRAWS: Final = (
    "Ancestral",
    "SDE",
    "LCM",
    "TCD",
    "SASolver",
    "DDPM",
    "ScoreSdeVe",
    "VQDiffusion",
    "Amused",
    "UnCLIP",
    "CogVideoXDPM",
)
"""Parts of the names of scheduler classes that draw noise in each step."""
_SEVERAL: Final = ("Heun", "KDPM2", "PNDM", "IPNDM")
"""Parts of the names of those that call the denoiser several times a step, or mix calls of several."""


def hindrance(kind: Any, config: Mapping[str, Any], extra: Mapping[str, Any]) -> str | None:
    """Why `kind` can't take approximate steps, as a clause for people, or None. `extra`: arguments of the call (`eta`)."""
    name = kind.__name__
    if any(part in name for part in _DRAWS):
        return f"{name} draws noise in each step"
    if any(part in name for part in _SEVERAL) and not (name == "PNDMScheduler" and config.get("skip_prk_steps")):
        return f"{name} calls the denoiser several times a step"
    if "sde" in str(config.get("algorithm_type", "")).lower() or config.get("stochastic_sampling"):
        return f"{name} draws noise in each step as it is set"
    if name.startswith(("DDIM", "CogVideoXDDIM")) and float(extra.get("eta", 0) or 0) > 0:
        return "eta is above 0, so noise is drawn in each step"
    if "step" not in dir(kind) or "model_output" not in inspect.signature(kind.step).parameters:
        return f"{name} takes its steps in a way of its own"
    return None
