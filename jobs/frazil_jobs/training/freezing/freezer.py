"""The freezer: one rank's edge of freezing. It draws masks, collects times, and has the plan solved on one rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import nn

from frazil_jobs.api.pipelining import Freezing, Schedule


class Freezer:
    """Made once a rank, before the engine; handed to it."""

    def __init__(
        self,
        settings: Freezing,
        stages: Mapping[int, nn.Module],
        *,
        schedule: Schedule,
        pipeline: int,
        microbatches: int,
        accumulation: int = 1,
        seed: int,
        warmup_steps: int,
        pipeline_group: dist.ProcessGroup | None,
        data_group: dist.ProcessGroup | None,
        injected: Any = None,
        replay: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """`warmup_steps` counts where settings.warmupSteps is left out (optimizer.warmupSteps).

        `injected` replaces measured times by given ones, so that a run is deterministic. `replay` is the `plans` of an
        earlier run: the same plans are taken at the same steps, and nothing is measured.
        """
        raise NotImplementedError

    @property
    def plans(self) -> list[dict[str, Any]]:
        """Log of the plans made so far: step, reason, the plan as JSON. What `replay` takes."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """State between two steps, of this rank: JSON-like values and (metrics only) tensors. Each rank saves its own."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict` of the same rank. Raises BadConfiguration where the job was another."""
        raise NotImplementedError
