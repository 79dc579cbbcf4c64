"""The five schedules as objects of torch.distributed.pipelining.

GPipe, 1F1B, Interleaved1F1B and ZBV are torch's own classes. ZBH1 is an order of ours that torch's runtime executes
(`_PipelineScheduleRuntime`, which inserts sends and receives). That class is private: its use here is known to work with
torch 2.13 and 2.15, the one that is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.distributed.pipelining.schedules import (
    ScheduleZBVZeroBubble,
    _Action,
    _PipelineSchedule,
    _PipelineScheduleRuntime,
)

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.training.planning.actions import Order

Loss = Callable[..., torch.Tensor]


def schedule_of(
    name: Schedule, stages: Sequence[PipelineStage], *, microbatches: int, loss: Loss | None, order: Order
) -> _PipelineSchedule:
    """This rank's schedule object. Gradients are left as sums over microbatches: the engine divides them once."""
    common: dict[str, Any] = {"n_microbatches": microbatches, "loss_fn": loss, "scale_grads": False}
    match name:
        case "GPipe":
            return ScheduleGPipe(stages[0], **common)
        case "1F1B":
            return Schedule1F1B(stages[0], **common)
        case "Interleaved1F1B":
            return ScheduleInterleaved1F1B(list(stages), **common)
        case "ZBV":
            return ScheduleZBVZeroBubble(list(stages), **common)
        case "ZBH1":
            return _of_order(order, stages, common)


def _of_order(order: Order, stages: Sequence[PipelineStage], common: dict[str, Any]) -> _PipelineScheduleRuntime:
    """A compute-only order, completed and checked by torch as `_load_csv` would do it from a file."""
    schedule = _PipelineScheduleRuntime(list(stages), **common)  # type: ignore[no-untyped-call]
    schedule.pipeline_order = {
        rank: [_Action.from_str(str(action)) for action in actions] for rank, actions in enumerate(order)
    }
    schedule._prepare_schedule_with_comms(schedule.pipeline_order)
    return schedule
