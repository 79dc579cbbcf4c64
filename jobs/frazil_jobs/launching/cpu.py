"""How a rank computes on this machine's cores."""

from __future__ import annotations

import ctypes
from typing import Final

import torch

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_KEPT: Final = 32 * 2**20
"""Bytes of one tensor; more than this the allocator takes from the system each time, whatever it's told."""
_MOST_KEPT: Final = 2**30
"""Bytes at the end of the heap."""


def use_cores(threads: int) -> None:
    """Compute with this many threads, and keep the memory of tensors that are freed for those of the next step.

    Left alone, glibc gives it back to the system, which hands it out again as pages of zeros: at 128 x 128 pictures, 16 at
    once, 12,000 to 24,000 pages a forward of the shapes model, which is then 10 to 15 % slower on the CPU. What a process
    takes at most stays the same. Another C library, and an allocator that was put in its place, are left as they are.
    """
    torch.set_num_threads(threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
