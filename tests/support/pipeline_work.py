"""What ranks run in the tests of the pipeline engine (tests/training/test_pipeline*.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pipeline_cases import BATCH, MICROBATCHES, batches, rank_of, reference, run_step, stage_count

from frazil_jobs.api.pipelining import Freezing


def masks_off(schedule: str, pipeline: int, accumulation: int = 1) -> dict[str, Any]:
    """Losses and the largest difference of a gradient from the unpipelined model's, in float64."""
    rank = rank_of(schedule, pipeline=pipeline, accumulation=accumulation, dtype=torch.float64)
    given = batches(accumulation, dtype=torch.float64)
    run_step(rank, 0, given)
    wanted_loss, wanted = reference(stage_count(schedule, pipeline), given, dtype=torch.float64)
    worst = max(
        float((parameter.grad - wanted[stage, name]).abs().max())
        for stage, module in rank.modules.items()
        for name, parameter in module.named_parameters()
    )
    return {"loss": rank.engine.mean_loss(), "wanted_loss": wanted_loss, "worst": worst}
