"""In which order samples are taken: a function of seed, step and replica. A run that is resumed, or that has more replicas,
takes the same batches.

The samples of all epochs, each shuffled anew, form one endless row; step t takes the batch from t * batchSize on. A sample's
place in its batch, and with it the microbatch that it's in, is another one each epoch: no sample is always the one that is
frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

HELD_OUT: int = 100
"""One row of so many is for validation, where the data set has no split for it."""


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The samples 0 … count - 1 in the order of one epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count).astype(np.int64)


def samples_of(*, seed: int, count: int, first: int, size: int) -> list[int]:
    """`size` samples of the endless row, from position `first` on."""
    found: list[int] = []
    while len(found) < size:
        epoch, place = divmod(first + len(found), count)
        found += epoch_order(seed, epoch, count)[place : place + size - len(found)].tolist()
    return found


def held_out(count: int) -> tuple[list[int], list[int]]:
    """Rows to train on, and every hundredth (at least the last one) for validation."""
    if count < 2:
        return list(range(count)), []
    validation = [row for row in range(count) if row % HELD_OUT == HELD_OUT - 1] or [count - 1]
    chosen = set(validation)
    return [row for row in range(count) if row not in chosen], validation


@dataclass(frozen=True, kw_only=True)
class Share:
    """A replica's share of each batch: it is cut into accumulated parts, and each part into replicas."""

    batch: int
    """Samples of an optimizer step."""
    accumulation: int = 1
    replicas: int = 1
    replica: int = 0

    @property
    def size(self) -> int:
        """Samples of one pipeline batch of one replica."""
        return self.batch // (self.accumulation * self.replicas)

    def start(self, number: int) -> int:
        """Position in the endless row of this replica's pipeline batch `number` (counted over all steps)."""
        step, part = divmod(number, self.accumulation)
        return step * self.batch + (part * self.replicas + self.replica) * self.size


class BatchOrder(Sampler[list[int]]):
    """Indices of one pipeline batch after the other, from any one on; its place is its state."""

    def __init__(self, *, seed: int, count: int, share: Share, batches: int, first: int = 0) -> None:
        """Batches `first` to `batches` - 1."""
        self._seed = seed
        self._count = count
        self._share = share
        self._batches = batches
        self.next = first

    def __iter__(self) -> Iterator[list[int]]:
        return self

    def __next__(self) -> list[int]:
        if self.next >= self._batches:
            raise StopIteration
        start = self._share.start(self.next)
        self.next += 1
        return samples_of(seed=self._seed, count=self._count, first=start, size=self._share.size)

    def __len__(self) -> int:
        return self._batches

    def state_dict(self) -> dict[str, Any]:
        """Its place."""
        return {"next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.next = int(state["next"])
