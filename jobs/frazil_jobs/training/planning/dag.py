"""What waits for what: actions in an order in which they can run, and the edges between them.

An action waits for the one before it on its rank; a forward for that of the stage before it, a backward for that of the
stage after it (its I where the backward is split) and for its own forward, a W for its I. An edge between ranks takes the
time of a hop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning.actions import Action, Kind
from frazil_jobs.training.planning.schedules import ScheduleOrder


@dataclass(frozen=True)
class Edge:
    """`target` starts at the earliest `seconds` after `source` has ended."""

    source: Action
    target: Action
    seconds: float


@dataclass(frozen=True)
class Dag:
    """The actions of a step and what they wait for."""

    actions: tuple[Action, ...]
    """Every action after those that it waits for."""
    waits: tuple[tuple[tuple[int, float], ...], ...]
    """For each action, what it waits for: places in `actions`, and seconds on the way."""
    ranks: tuple[int, ...]
    """The rank of each action."""

    @property
    def edges(self) -> tuple[Edge, ...]:
        """What `waits` says, with names."""
        return tuple(
            Edge(self.actions[source], target, seconds)
            for target, waits in zip(self.actions, self.waits, strict=True)
            for source, seconds in waits
        )


def build(order: ScheduleOrder, hop_seconds: Sequence[float] = ()) -> Dag:
    """The DAG of an order. `hop_seconds`: one for each boundary between stage s and s + 1; none for 0 everywhere.

    Raises BadInput for an order that lacks a pass, has one twice or on a wrong rank, or that would wait for ever.
    """
    hops = tuple(hop_seconds) or (0.0,) * (order.stages - 1)
    if len(hops) != order.stages - 1:
        raise BadInput(
            f"{order.stages} stages have {order.stages - 1} boundaries, and there are {len(hops)} hop times",
            remedy="give the seconds of each hop between neighbouring stages",
        )
    ranks = _check(order)
    waits = {action: _waits(action, ranks, order, hops) for action in ranks}
    for actions in order.order:
        for before, action in pairwise(actions):
            waits[action].setdefault(before, 0.0)
    runnable = _in_runnable_order(order, waits)
    place = {action: at for at, action in enumerate(runnable)}
    return Dag(
        actions=runnable,
        waits=tuple(tuple((place[source], late) for source, late in waits[action].items()) for action in runnable),
        ranks=tuple(ranks[action] for action in runnable),
    )


def _check(order: ScheduleOrder) -> dict[Action, int]:
    """The rank of each action, once every stage is known to see every microbatch once in each direction."""
    ranks: dict[Action, int] = {}
    for rank, actions in enumerate(order.order):
        for action in actions:
            if action in ranks:
                raise _wrong(f"{action} is there twice")
            if action.stage >= order.stages or order.placement.rank_of(action.stage) != rank:
                raise _wrong(f"{action} is on rank {rank}, which does not hold stage {action.stage}")
            if action.kind is Kind.I and action.stage == 0:
                raise _wrong(
                    f"{action} computes nothing: the first stage has no input gradient; see schedules.executed"
                )
            ranks[action] = rank
    if not ranks:
        raise _wrong("it is empty")
    for stage in range(order.stages):
        for microbatch in range(order.microbatches):
            kinds = "".join(kind for kind in "FBIW" if Action(Kind(kind), stage, microbatch) in ranks)
            if kinds not in ("FB", "FIW"):
                raise _wrong(
                    f"stage {stage} has {', '.join(kinds) or 'nothing'} of microbatch {microbatch}; "
                    "it needs F and B, or F, I and W"
                )
    return ranks


def _waits(
    action: Action, ranks: dict[Action, int], order: ScheduleOrder, hops: Sequence[float]
) -> dict[Action, float]:
    """What an action waits for, apart from its rank."""
    kind, stage, microbatch = action.kind, action.stage, action.microbatch
    if kind is Kind.W:
        return {Action(Kind.I, stage, microbatch): 0.0}
    if kind is Kind.F:
        neighbours = [Action(Kind.F, stage - 1, microbatch)] if stage else []
        own = []
    else:
        after = (Action(kind, stage + 1, microbatch) for kind in (Kind.I, Kind.B))
        neighbours = [found for found in after if found in ranks]
        own = [Action(Kind.F, stage, microbatch)]
    travelled = {
        other: hops[min(other.stage, stage)] if order.placement.crosses_ranks(min(other.stage, stage)) else 0.0
        for other in neighbours
    }
    return travelled | dict.fromkeys(own, 0.0)


def _in_runnable_order(order: ScheduleOrder, waits: dict[Action, dict[Action, float]]) -> tuple[Action, ...]:
    """Let every rank go as far as it can, in turns, as real ranks would."""
    done: dict[Action, None] = {}
    at = [0] * len(order.order)
    went_on = True
    while went_on:
        went_on = False
        for rank, actions in enumerate(order.order):
            while at[rank] < len(actions) and all(source in done for source in waits[actions[at[rank]]]):
                done[actions[at[rank]]] = None
                at[rank] += 1
                went_on = True
    stuck = [(rank, actions[at[rank]]) for rank, actions in enumerate(order.order) if at[rank] < len(actions)]
    if stuck:
        said = (
            f"rank {rank} is at {action} and waits for {next(source for source in waits[action] if source not in done)}"
            for rank, action in stuck
        )
        raise _wrong(f"the ranks wait for each other for ever: {'; '.join(said)}")
    return tuple(done)


def _wrong(what: str) -> BadInput:
    return BadInput(f"this order can't run: {what}", remedy="take the orders of planning.schedules, or mend this one")
