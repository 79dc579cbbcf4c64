"""The error budget of mode Guided: how far from exact each image may end, and what a step costs of it.

The budget is a PSNR of the decoded image to the exact one, in decibels. It is turned into a root mean square error of
the final latent, and steps are charged with the errors that they are expected to cause there:

    expected error = sensitivity of the scheduler x expected error of the guided prediction x SAFETY

Errors are added up, which is what they do when all of them point the same way. What is left of an image's budget is shared
evenly among the steps that are left; a batch approximates a step only if each of its images can pay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

LATENT_TO_PICTURE: Final = 0.25
"""Root mean square error of the picture (values 0 … 1) by that of the final latent, whose standard deviation is about 1:
pictures have a standard deviation of about a quarter."""
SAFETY: Final = 1.0
"""What the steps after a wrong one make of it, and what the estimate misses."""


def latent_error(psnr_db: float) -> float:
    """The root mean square error of the final latent that a PSNR of the picture allows; 0 for infinite decibels."""
    return 0.0 if math.isinf(psnr_db) else 10 ** (-psnr_db / 20) / LATENT_TO_PICTURE


@dataclass
class Ledger:
    """What each image of a batch has spent."""

    allowed: float
    """Root mean square error of the final latent."""
    spent: list[float] = field(default_factory=list)

    def affords(self, errors: Sequence[float], *, steps_left: int) -> bool:
        """Whether every image can pay its error from an even share of what it has left. (None can pay what is no number.)"""
        spent = self.spent or [0.0] * len(errors)
        return all(error <= (self.allowed - paid) / steps_left for error, paid in zip(errors, spent, strict=True))

    def pay(self, errors: Sequence[float]) -> None:
        """Charge each image."""
        spent = self.spent or [0.0] * len(errors)
        self.spent = [paid + error for paid, error in zip(spent, errors, strict=True)]
