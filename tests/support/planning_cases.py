"""Orders and timings for tests of freezing plans: random ones, and torch's own orders."""

from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import strategies as some

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning.actions import Action, Kind, Order
from frazil_jobs.training.planning.schedules import STAGES_A_RANK, ScheduleOrder, order_of
from frazil_jobs.training.planning.timings import ActionTime, Timings

SCHEDULES: tuple[Schedule, ...] = tuple(STAGES_A_RANK)
TORCH_NAMES: dict[Schedule, str] = {"Interleaved1F1B": "Interleaved1F1B", "ZBV": "ZBVZeroBubble"}


def random_timings(order: ScheduleOrder, seed: int, *, hop: float = 0.0) -> Timings:
    """Every action takes a time of its own; the first stage's backward can be skipped whole."""
    generator = np.random.default_rng(seed)

    def time_of(action: Action) -> ActionTime:
        full = float(generator.uniform(0.5, 3.0))
        if not action.kind.freezable:
            return ActionTime(full=full, frozen=full)
        share = 0.0 if action.kind is Kind.W or action.stage == 0 else float(generator.uniform(0.2, 0.8))
        return ActionTime(full=full, frozen=share * full)

    return Timings(
        provenance="emulated",
        actions={action: time_of(action) for action in order.actions},
        hop_seconds=tuple(float(generator.uniform(0, hop)) for _ in range(order.stages - 1)),
    )


@some.composite
def orders(draw: some.DrawFn, ranks: int = 4, microbatches: int = 8) -> ScheduleOrder:
    """An order of any schedule, up to so many ranks and microbatches."""
    schedule = draw(some.sampled_from(SCHEDULES))
    while True:
        try:
            return order_of(
                schedule, ranks=draw(some.integers(1, ranks)), microbatches=draw(some.integers(1, microbatches))
            )
        except BadConfiguration:
            continue


@some.composite
def steps(draw: some.DrawFn, ranks: int = 4, microbatches: int = 8) -> tuple[ScheduleOrder, Timings]:
    """An order, and random timings of it, some with slow links."""
    order = draw(orders(ranks, microbatches))
    return order, random_timings(order, draw(some.integers(0, 2**32 - 1)), hop=draw(some.sampled_from((0.0, 1.0))))


def torch_order(schedule: Schedule, ranks: int, microbatches: int) -> Order:
    """What torch does: the pipeline order that its runtime runs, or, for GPipe and 1F1B, which have no such runtime, the
    calls that they make."""
    if schedule in TORCH_NAMES:
        from torch.distributed.pipelining._schedule_visualizer import get_schedule_ops

        found = get_schedule_ops(TORCH_NAMES[schedule], ranks, microbatches)
        return tuple(tuple(Action.parse(str(op)) for op in row if op is not None) for row in found)
    return tuple(_calls(schedule, rank, ranks, microbatches) for rank in range(ranks))


def _calls(schedule: Schedule, rank: int, ranks: int, microbatches: int) -> tuple[Action, ...]:
    """The passes of one rank, with a stage that computes and sends nothing. (`pipeline_order` of 1F1B isn't what it does: in
    torch 2.9 to 2.15 the last rank's begins with a second microbatch.)"""
    from torch.distributed.pipelining import schedules as torch_schedules
    from torch.distributed.pipelining.stage import PipelineStage

    made: list[Action] = []
    stage = mock.create_autospec(PipelineStage, instance=True)
    stage.configure_mock(group_rank=rank, group_size=ranks, num_stages=ranks, stage_index=rank, submod=None)
    stage.configure_mock(is_last=rank == ranks - 1, is_first=rank == 0, has_backward=True)
    stage.forward_one_chunk.side_effect = lambda at, *_, **__: made.append(Action(Kind.F, rank, at))
    stage.backward_one_chunk.side_effect = lambda at, *_, **__: made.append(Action(Kind.B, rank, at))
    for name in ("get_fwd_recv_ops", "get_bwd_recv_ops", "get_fwd_send_ops", "get_bwd_send_ops"):
        getattr(stage, name).return_value = []
    of_torch = torch_schedules.get_schedule_class(schedule)(stage, microbatches, loss_fn=lambda *_: None)
    with mock.patch.object(of_torch, "_initialize_stage"):
        of_torch._step_microbatches([()] * microbatches, [{}] * microbatches, [None] * microbatches, [])
    return tuple(made)
