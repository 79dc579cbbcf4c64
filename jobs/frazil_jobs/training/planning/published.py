"""The published 8B run: Llama-3.1-8B over 4 stages with 8 microbatches, as its authors' logs have it.

Source: median action times of the runs behind arXiv 2602.05754 (schedule logs of the 8B 1F1B runs in its authors'
development repository, orangingq/torchtitan; 4 x H200, sequences of 1024, microbatches of 2), rounded to 0.1 ms.
Communication is in none of them.
"""

from __future__ import annotations

from typing import Final

from frazil_jobs.training.planning.models import ModelTime
from frazil_jobs.training.planning.timings import StageTime

RANKS: Final = 4
MICROBATCHES: Final = 8
BLOCKS: Final = 32
MAX_RATIO: Final = 0.8
_FORWARD: Final = (13.8, 15.5, 13.5, 15.1)
_BACKWARD: Final = (42.8, 45.0, 40.0, 45.9)
_BACKWARD_FROZEN: Final = (0.0, 20.4, 18.0, 20.2)

STAGES: Final = tuple(
    StageTime(forward=forward / 1000, backward=backward / 1000, backward_frozen=frozen / 1000)
    for forward, backward, frozen in zip(_FORWARD, _BACKWARD, _BACKWARD_FROZEN, strict=True)
)
MODEL: Final = ModelTime.of_stages(STAGES, blocks=(BLOCKS // RANKS,) * RANKS, provenance="recorded")
"""Its blocks, for schedules with other stages: each stage's time spread evenly over its 8 blocks."""
