"""How checkpoints of a TrainingJob are named, below the job's prefix.

    checkpoints/step-00000500-a2/…          what the ranks wrote, by attempt 2
    checkpoints/step-00000500-a2/COMMITTED  written last, when all of it is stored

A folder without the marker is the rest of an attempt that was lost, and counts for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

FOLDER: Final = "checkpoints"
MARKER: Final = "COMMITTED"
KEEP: Final = "keep"
"""In the metadata of a marker: how many committed checkpoints its uploader keeps, this one included."""
_NAME: Final = re.compile(rf"{FOLDER}/step-(\d{{8,}})-a(\d+)/(.+)")


@dataclass(frozen=True, order=True)
class Checkpoint:
    """One checkpoint: its optimizer step and the attempt that wrote it. Ordered by step, then attempt."""

    step: int
    attempt: int

    @property
    def folder(self) -> str:
        """Below the job's prefix."""
        return f"{FOLDER}/step-{self.step:08d}-a{self.attempt}"

    @property
    def marker(self) -> str:
        """The key that commits it."""
        return f"{self.folder}/{MARKER}"


def of_key(key: str) -> tuple[Checkpoint, str] | None:
    """The checkpoint that a key belongs to, and its name within it; None for any other key."""
    match = _NAME.fullmatch(key)
    return (Checkpoint(int(match[1]), int(match[2])), match[3]) if match else None


def committed(keys: Iterable[str]) -> list[Checkpoint]:
    """Those that have their marker, oldest first."""
    found = (of_key(key) for key in keys)
    return sorted(one[0] for one in found if one is not None and one[1] == MARKER)


def newest(keys: Iterable[str]) -> Checkpoint | None:
    """The newest committed one, of keys below `checkpoints/`."""
    return max(committed(keys), default=None)


def outdated(keys: Iterable[str], keep: int) -> list[str]:
    """Keys of checkpoints older than the `keep` newest committed ones: markers first, so that none is half there.

    What an attempt that was lost left behind goes with them, once it's older.
    """
    listed = list(keys)
    kept = committed(listed)[-keep:]
    if not kept:
        return []
    old = [(key, one) for key in listed if (one := of_key(key)) is not None and one[0] < kept[0]]
    return [key for key, _ in sorted(old, key=lambda pair: (pair[1][1] != MARKER, pair[0]))]
