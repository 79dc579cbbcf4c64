"""The error budget of mode Guided: how far from exact each image may end, and what it has spent of that.

The budget is a PSNR of the decoded image to the exact one, in decibels. It is turned into a root mean square error of the
final latent. Before a step is approximated it is charged with what it is expected to cause there: the scheduler's
sensitivity times the expected error of the guided prediction. At the next whole step the charges of the run that it ends
give way to what was measured: a tensor, so that errors of several runs that undo each other cost nothing.

A run may use its part of what is left. Errors within a run point the same way and are added up. Those of different runs
are independent where features are forecast, so that their squares add up and the squared error is what is shared out.
Stages lag in the same way in every run: there errors themselves add up, and are shared out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from frazil_jobs.generation.modes.policy import rms

LATENT_TO_PICTURE: Final = 0.25
"""Root mean square error of the picture (values 0 … 1) by that of the final latent, whose standard deviation is about 1:
pictures have a standard deviation of about a quarter."""


def latent_error(psnr_db: float) -> float:
    """The root mean square error of the final latent that a PSNR of the picture allows; 0 for infinite decibels."""
    return 0.0 if math.isinf(psnr_db) else 10 ** (-psnr_db / 20) / LATENT_TO_PICTURE


@dataclass
class Ledger:
    """What each image of a batch has spent."""

    allowed: float
    """Root mean square error of the final latent, as it is measured here."""
    independent: bool = True
    """Errors of different runs; else they point the same way."""
    drift: torch.Tensor | None = None
    """Measured of all runs so far: (images, …)."""
    charged: list[float] = field(default_factory=list)
    """Of each image: expected of the run in hand."""

    def affords(self, errors: Sequence[float], *, share: float) -> bool:
        """Whether the run in hand may go on by a step of these errors, one an image; `share`: its part of what is left.

        None can pay what is no number.
        """
        drifts = [0.0] * len(errors) if self.drift is None else rms(self.drift).tolist()
        charged = self.charged or [0.0] * len(errors)
        power = 2 if self.independent else 1
        return all(
            (before + error) ** power <= share * (self.allowed**power - drift**power)
            for before, error, drift in zip(charged, errors, drifts, strict=True)
        )

    def charge(self, errors: Sequence[float]) -> None:
        """A step of the run in hand."""
        charged = self.charged or [0.0] * len(errors)
        self.charged = [before + error for before, error in zip(charged, errors, strict=True)]

    def settle(self, measured: torch.Tensor) -> None:
        """The run is over; `measured` is what it did to the final latent."""
        self.drift = measured if self.drift is None else self.drift + measured
        self.charged = []
