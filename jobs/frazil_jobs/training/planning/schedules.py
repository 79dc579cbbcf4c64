"""What each rank does, in order, for every schedule of a TrainingJob.

The orders of GPipe, 1F1B, Interleaved1F1B and ZBV are torch's own (`torch.distributed.pipelining.schedules`); ZBH1 is
Frazil's, after ZB-H1 of Qi et al. (arXiv 2401.10241): the warm-up of 1F1B, backward split, dW put off into bubbles.

In a split backward the first stage has no input gradient to give: torch's I does nothing there, and its W is the whole
backward. So here it has no I, and a B where torch has that W.
"""

from __future__ import annotations

from dataclasses import dataclass

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.training.planning.actions import Order, Placement


@dataclass(frozen=True)
class ScheduleOrder:
    """What each rank does, and which stages it holds."""

    order: Order
    placement: Placement
    stages: int


def order_of(schedule: Schedule, *, ranks: int, microbatches: int) -> ScheduleOrder:
    """The order of a schedule. Raises BadConfiguration where the schedule needs other numbers."""
    raise NotImplementedError


def stages_of(schedule: Schedule, ranks: int) -> int:
    """Stages that the model is cut into: two a rank for Interleaved1F1B and ZBV, else one."""
    raise NotImplementedError
