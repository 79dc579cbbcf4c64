"""How far an approximate mode's outputs are from exact ones: which of a job's prompts are made twice, and the measure."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PICTURE_RANGE: Final = 1.0
SOUND_RANGE: Final = 2.0
"""Between the smallest and the largest value of a sample: sound goes from -1 to 1."""


def compared_prompts(count: int, *, wanted: int) -> frozenset[int]:
    """Indices of the prompts of a job that are compared: `wanted` of `count`, evenly spread, from the first.

    A function of the job alone, so that a job that is started again, or cut into other shards, compares the same ones.
    """
    number = min(wanted, count)
    return frozenset(index * count // number for index in range(number))


def psnr(one: NDArray[Any], other: NDArray[Any], *, sound: bool = False) -> float:
    """Peak signal-to-noise ratio of two outputs in decibels, before they are encoded; infinite for equal ones."""
    error = float(np.mean((np.asarray(one, np.float64) - np.asarray(other, np.float64)) ** 2))
    peak = SOUND_RANGE if sound else PICTURE_RANGE
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)
