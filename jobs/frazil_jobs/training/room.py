"""Whether a pod's spool can hold the checkpoints of a job: asked before the first step, not when the volume is full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from frazil_jobs.api.trainingjob import Optimizer
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.cutting import Stage

_FLOAT: Final = 4
"""Bytes of a number: weights, their means and all that an optimizer keeps are float32."""
_GIB: Final = 1 << 30


def checkpoint_bytes(settings: Optimizer, stages: Iterable[Stage]) -> int:
    """What these stages take in a checkpoint: weights, state of the optimizer, running means."""
    numbers = sum(weight.numel() for stage in stages for weight in stage.weights().values())
    kept = 2 if settings.name == "AdamW" else int(float(settings.betas[0]) > 0)
    return numbers * _FLOAT * (1 + kept + int(float(settings.ema) > 0))


def check_room(sizes: Sequence[int], *, pipeline: int, local: int, room: int) -> None:
    """Raise BadConfiguration unless `room` bytes of a spool are enough: for the checkpoint that an attempt goes on from,
    which each pod reads whole, and for the pod's part of the next one. `sizes`: by rank; `local`: ranks of a pod."""
    whole = sum(sizes[:pipeline])  # of one replica: what all have is written once
    part = max(min(whole, sum(sizes[first : first + local])) for first in range(0, len(sizes), local))
    if whole + part > room:
        raise BadConfiguration(
            f"a checkpoint takes {whole / _GIB:.2f} GiB, and a pod must hold one and its part of the next, "
            f"{(whole + part) / _GIB:.2f} GiB, where {room / _GIB:.2f} GiB may wait for the store",
            field="spec.model.uri",
            remedy=f"raise the chart's jobs.spoolSize to {(whole + part) / room:.1f} times what it is, or lower what is "
            "kept of a weight (optimizer.ema)",
        )
