"""Random numbers that are the same on every rank and after every resume: a function of what they are for, with no state.

A draw is keyed by (seed, draw number, stage, ...). Only raw 64-bit words of Philox are used, which NumPy promises never to
change, not its distributions, which it may.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def uniforms(count: int, *key: int) -> Floats:
    """`count` numbers in (0, 1), of the key alone. Keys are not negative."""
    words = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    # the upper 53 bits, halfway between two steps, so that neither 0 nor 1 comes out
    return (np.asarray(words >> np.uint64(11), dtype=np.float64) + 0.5) * 2.0**-53


def permutation(count: int, *key: int) -> npt.NDArray[np.int64]:
    """0 … count - 1 in an order of the key alone."""
    return np.argsort(uniforms(count, *key), kind="stable").astype(np.int64)
