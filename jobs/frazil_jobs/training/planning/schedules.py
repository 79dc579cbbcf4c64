"""What each rank does, in order, for every schedule of a TrainingJob.

The orders of GPipe, 1F1B, Interleaved1F1B and ZBV are torch's own (`torch.distributed.pipelining.schedules`); ZBH1 is
Frazil's (`zbh1.py`).

In a split backward the first stage has no input gradient to give: torch's I does nothing there, and its W is the whole
backward. So here the first stage has no I, and a B where torch has that W (`executed`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning.actions import Action, Kind, Order, Placement
from frazil_jobs.training.planning.zbh1 import zbh1

STAGES_A_RANK: Final[dict[Schedule, int]] = {"GPipe": 1, "1F1B": 1, "Interleaved1F1B": 2, "ZBV": 2, "ZBH1": 1}
SPLIT: Final[tuple[Schedule, ...]] = ("ZBV", "ZBH1")
"""Schedules that compute dX and dW apart."""


@dataclass(frozen=True)
class ScheduleOrder:
    """What each rank does, and which stages it holds."""

    order: Order
    placement: Placement
    stages: int

    @property
    def actions(self) -> Iterator[Action]:
        """Those of all ranks, rank by rank."""
        return (action for actions in self.order for action in actions)

    @property
    def microbatches(self) -> int:
        """How many there are."""
        return 1 + max(action.microbatch for action in self.actions)


def order_of(schedule: Schedule, *, ranks: int, microbatches: int) -> ScheduleOrder:
    """The order of a schedule. Raises BadConfiguration where the schedule needs other numbers."""
    if ranks < 1 or microbatches < 1:
        raise BadConfiguration(
            f"a pipeline of {ranks} ranks and {microbatches} microbatches does nothing",
            field="spec.parallelism",
            remedy="set pipeline and microbatches to at least 1",
        )
    placement = Placement.v(ranks) if schedule == "ZBV" else Placement.loop(ranks, stages_of(schedule, ranks))
    order = executed(tuple(tuple(_MAKERS[schedule](rank, ranks, microbatches)) for rank in range(ranks)))
    return ScheduleOrder(order=order, placement=placement, stages=placement.stages)


def stages_of(schedule: Schedule, ranks: int) -> int:
    """Stages that the model is cut into: two a rank for Interleaved1F1B and ZBV, else one."""
    return STAGES_A_RANK[schedule] * ranks


def executed(order: Order) -> Order:
    """An order of torch's with what its first stage really does: no I, and a full B in place of W."""
    return tuple(
        tuple(
            Action(Kind.B, 0, action.microbatch) if (action.kind, action.stage) == (Kind.W, 0) else action
            for action in actions
            if (action.kind, action.stage) != (Kind.I, 0)
        )
        for actions in order
    )


def microbatches_held(order: ScheduleOrder) -> tuple[float, ...]:
    """Most microbatches whose activations each rank keeps at once: from a forward to the end of its last backward.

    One that is kept of one of a rank's two stages counts half.
    """
    peaks = []
    for rank, actions in enumerate(order.order):
        held = peak = 0
        for action in actions:
            held += {Kind.F: 1, Kind.I: 0, Kind.B: -1, Kind.W: -1}[action.kind]
            peak = max(peak, held)
        peaks.append(peak / len(order.placement.stages_of(rank)))
    return tuple(peaks)


def _gpipe(rank: int, ranks: int, microbatches: int) -> Iterator[Action]:
    """All forwards, then all backwards."""
    for kind in (Kind.F, Kind.B):
        yield from (Action(kind, rank, microbatch) for microbatch in range(microbatches))


def _1f1b(rank: int, ranks: int, microbatches: int) -> Iterator[Action]:
    """As many forwards as there are stages from here to the end, then one backward, one forward."""
    warmup = min(microbatches, ranks - rank)
    yield from (Action(Kind.F, rank, microbatch) for microbatch in range(warmup))
    for microbatch in range(microbatches):
        yield Action(Kind.B, rank, microbatch)
        if warmup + microbatch < microbatches:
            yield Action(Kind.F, rank, warmup + microbatch)


def _interleaved(rank: int, ranks: int, microbatches: int) -> Iterator[Action]:
    """1F1B over chunks of the model, in rounds of about as many microbatches as ranks (arXiv 2104.04473, 2.2)."""
    rounds = max(1, microbatches // ranks)
    if microbatches % rounds:
        raise BadConfiguration(
            f"Interleaved1F1B takes {microbatches} microbatches in {rounds} equal rounds, which does not divide",
            field="spec.parallelism.microbatches",
            remedy=f"set it to {rounds * ranks} or {(rounds + 1) * ranks}",
        )
    chunks = STAGES_A_RANK["Interleaved1F1B"]
    a_round, passes = microbatches // rounds, chunks * microbatches
    warmup = min((chunks - 1) * a_round + 2 * (ranks - 1 - rank), passes)
    seen: Counter[tuple[Kind, int]] = Counter()

    def next_of(kind: Kind, chunk: int) -> Action:
        stage = chunk * ranks + rank
        microbatch = seen[kind, stage]
        seen[kind, stage] += 1
        return Action(kind, stage, microbatch)

    for step in range(passes + warmup):
        if step < passes:
            yield next_of(Kind.F, step // a_round % chunks)
        if step >= warmup:
            yield next_of(Kind.B, chunks - 1 - (step - warmup) // a_round % chunks)


def _zbv(rank: int, ranks: int, microbatches: int) -> Iterator[Action]:
    """Down through the first half of the stages, up through the second; dW apart where it fills a bubble
    (arXiv 2401.10241, section 6)."""
    down, up = rank, 2 * ranks - 1 - rank
    count: Counter[tuple[Kind, int]] = Counter()
    made: list[Action] = []

    def add(stage: int, *kinds: Kind) -> None:
        for kind in kinds:
            made.append(Action(kind, stage, count[kind, stage]))
            count[kind, stage] += 1

    # The pattern needs 2 · ranks - 1 microbatches; where there are fewer, it is made for them and then thinned out.
    wanted = max(2 * ranks - 1, microbatches)
    add(down, *[Kind.F] * (2 * (ranks - rank) - 1))
    for _ in range(rank):
        add(up, Kind.F)
        add(down, Kind.F)
    for _ in range(ranks - rank):
        add(up, Kind.F, Kind.I, Kind.W)
    while count[Kind.F, up] < count[Kind.F, down] or count[Kind.F, down] < wanted:
        if count[Kind.F, down] < wanted:
            add(down, Kind.F)
        add(down, Kind.I, Kind.W)
        add(up, Kind.F, Kind.I, Kind.W)
    for _ in range(rank):
        add(down, Kind.I)
        add(up, Kind.I)
    for _ in range(ranks - rank):
        add(down, Kind.I, Kind.W)
    for stage in (up, down):
        add(stage, *[Kind.W] * (count[Kind.I, stage] - count[Kind.W, stage]))
    return (action for action in made if action.microbatch < microbatches)


_MAKERS: Final[dict[Schedule, Callable[[int, int, int], Iterator[Action]]]] = {
    "GPipe": _gpipe,
    "1F1B": _1f1b,
    "Interleaved1F1B": _interleaved,
    "ZBV": _zbv,
    "ZBH1": zbh1,
}
