"""Random draws that follow from the seed and a name alone: a resumed run, or another rank, draws the same.

Nothing here has a state that a checkpoint would have to hold: the step counts.
"""

from __future__ import annotations

import hashlib

import torch


def seed_of(seed: int, *names: object) -> int:
    """A seed of 63 bits for what `names` say."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """A generator on the CPU: the same numbers on every device."""
    return torch.Generator().manual_seed(seed_of(seed, *names))
