"""Noise and what is predicted of it, as the folder's own scheduler defines them.

Schedulers with betas: x_t = sqrt(a_t) x + sqrt(1 - a_t) e, and the target is e, the velocity, or x (Ho 2020; Salimans and Ho
2022). Flow matching: x_s = (1 - s) x + s e, and the target is e - x, with s drawn logit-normally (Esser 2024, eq. 19).
"""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.tasks.base import MODEL_FIELD


class Noising:
    """Noisy samples, time steps and targets."""

    def __init__(self, scheduler: Any) -> None:
        """`scheduler` is any of diffusers', of which the configuration is read."""
        self.is_flow = type(scheduler).__name__.startswith("FlowMatch")
        if self.is_flow:
            flow: Any = diffusers.FlowMatchEulerDiscreteScheduler
            self._flow = flow.from_config(scheduler.config)
            self.steps = int(self._flow.config.num_train_timesteps)
            return
        if not hasattr(scheduler, "add_noise") or not hasattr(scheduler, "alphas_cumprod"):
            raise BadConfiguration(
                f"{type(scheduler).__name__} says no noise schedule that can be trained on",
                field=MODEL_FIELD,
                remedy="use a folder with a DDPM, DDIM, DPM-Solver or flow-matching scheduler",
            )
        betas: Any = diffusers.DDPMScheduler
        self._betas = betas.from_config(scheduler.config)
        self.steps = int(self._betas.config.num_train_timesteps)
        self._kind = str(self._betas.config.prediction_type)

    def levels(self, count: int, draw: torch.Generator, *, spread: bool) -> torch.Tensor:
        """Indices of `count` time steps; `spread` evenly, for an evaluation that varies less."""
        if spread:
            within = torch.rand(count, generator=draw, dtype=torch.float64)
            places = (torch.randperm(count, generator=draw) + within) / count
        elif self.is_flow:
            places = compute_density_for_timestep_sampling(
                weighting_scheme="logit_normal", batch_size=count, logit_mean=0.0, logit_std=1.0, generator=draw
            )
        else:
            return torch.randint(self.steps, (count,), generator=draw)
        return (places * self.steps).long().clamp(max=self.steps - 1)

    def __call__(
        self, clean: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy samples, the time steps as the model takes them, and the target, all of `clean`'s batch."""
        if self.is_flow:
            sigmas = self._flow.sigmas[levels].to(clean.device, clean.dtype)
            wide = sigmas.reshape(-1, *[1] * (clean.ndim - 1))
            times = self._flow.timesteps[levels].to(clean.device, clean.dtype)
            return (1 - wide) * clean + wide * noise, times, noise - clean
        levels = levels.to(clean.device)
        noisy = self._betas.add_noise(clean, noise, levels)
        if self._kind == "v_prediction":
            return noisy, levels, self._betas.get_velocity(clean, noise, levels)
        return noisy, levels, noise if self._kind == "epsilon" else clean
