"""How long each action of a pipeline takes, with nothing frozen and with everything frozen.

In between, time is linear in the freeze ratio: seconds = full - ratio · (full - frozen), TimelyFreeze's model (arXiv
2602.05754). That holds for every stage but the first whatever tensors are frozen, as dX goes on through all of it. The
first stage gives no dX to anyone, so its chain of dX ends at the frontmost tensor that is not frozen: there the model
holds when whole blocks are frozen from the front, and the ratio counts their time (`curve` is for what does otherwise).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning.actions import Kind, Order
from frazil_jobs.training.planning.canonical import ActionKey, Canonical

Provenance: TypeAlias = Literal["recorded", "estimated", "emulated"]
"""Measured in a run; counted from the model's operations; or given to layers that sleep."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ActionTime(Canonical):
    """Seconds of one action."""

    full: Seconds
    """With nothing frozen."""
    frozen: Seconds
    """With every parameter of the stage frozen; for F and I the same as `full`."""
    curve: tuple[tuple[float, Seconds], ...] = ()
    """Where time is not linear: (ratio, seconds) points between (0, full) and (1, frozen), by ratio, joined by lines."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.frozen > self.full:
            raise ValueError(f"frozen ({self.frozen:g} s) must not be longer than full ({self.full:g} s)")
        ratios = [0.0, *(ratio for ratio, _ in self.curve), 1.0]
        if any(left >= right for left, right in pairwise(ratios)):
            raise ValueError("curve needs ascending ratios between 0 and 1")
        return self

    @property
    def saving(self) -> float:
        """Seconds that freezing everything saves."""
        return self.full - self.frozen

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """(ratio, seconds) from nothing to everything frozen; time is linear between neighbours."""
        return ((0.0, self.full), *self.curve, (1.0, self.frozen))

    def at(self, ratio: float) -> float:
        """Seconds at a freeze ratio between 0 and 1."""
        for (left, before), (right, after) in pairwise(self.points):
            if ratio <= right:
                return before + (ratio - left) / (right - left) * (after - before)
        return self.frozen

    def scaled(self, factor: float) -> ActionTime:
        """All seconds multiplied."""
        curve = tuple((ratio, factor * seconds) for ratio, seconds in self.curve)
        return ActionTime(full=factor * self.full, frozen=factor * self.frozen, curve=curve)


class StageTime(Canonical):
    """Seconds of one microbatch's passes through one stage, from which those of every schedule follow."""

    forward: Seconds
    backward: Seconds
    """Full backward, nothing frozen."""
    backward_frozen: Seconds
    """Full backward, every parameter frozen: dX alone. 0 for the first stage, which needs none."""

    def of(self, kind: Kind) -> ActionTime:
        """What one pass takes. A split backward takes what the full one takes: I its frozen part, W the rest."""
        weights = max(0.0, self.backward - self.backward_frozen)
        full, frozen = {
            Kind.F: (self.forward, self.forward),
            Kind.B: (self.backward, self.backward_frozen),
            Kind.I: (self.backward_frozen, self.backward_frozen),
            Kind.W: (weights, 0.0),
        }[kind]
        return ActionTime(full=full, frozen=frozen)


class Timings(Canonical):
    """Seconds of every action of one order."""

    provenance: Provenance
    actions: Mapping[ActionKey, ActionTime]
    hop_seconds: tuple[Seconds, ...]
    """From the end of a stage's pass to the start of its neighbour's on another rank: one for each boundary between stage
    s and s + 1, the same in both directions. Neighbours on one rank pay nothing, whatever is written here."""
    stage_blocks: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Blocks of each stage, where known: with them the times of other cuts can be told."""
    note: str = ""
    """Where they come from, for people."""

    @classmethod
    def of_stages(
        cls,
        stages: Sequence[StageTime],
        order: Order,
        *,
        provenance: Provenance,
        hop_seconds: float | Sequence[float] = 0.0,
        stage_blocks: tuple[int, ...] = (),
        note: str = "",
    ) -> Self:
        """The timings of an order in which every microbatch takes a stage equally long."""
        hops = (hop_seconds,) * (len(stages) - 1) if isinstance(hop_seconds, float | int) else tuple(hop_seconds)
        return cls(
            provenance=provenance,
            actions={action: stages[action.stage].of(action.kind) for actions in order for action in actions},
            hop_seconds=hops,
            stage_blocks=stage_blocks,
            note=note,
        )

    def stage_averaged(self) -> Self:
        """The same with each action's seconds replaced by the mean of its kind and stage, against noise.

        Curves are averaged at the ratios of the group's first."""
        groups: dict[tuple[Kind, int], list[ActionTime]] = defaultdict(list)
        for action, time in self.actions.items():
            groups[action.kind, action.stage].append(time)
        means = {group: _mean(times) for group, times in groups.items()}
        return self.model_copy(
            update={"actions": {action: means[action.kind, action.stage] for action in self.actions}}
        )

    def scaled(self, factor: float) -> Self:
        """All seconds multiplied."""
        return self.model_copy(
            update={
                "actions": {action: time.scaled(factor) for action, time in self.actions.items()},
                "hop_seconds": tuple(factor * hop for hop in self.hop_seconds),
            }
        )

    def stage_times(self) -> tuple[StageTime, ...]:
        """What the stages take on average: timings of another schedule with the same stages can be made of them.

        Raises BadInput when a stage lacks a forward or a backward."""
        means = {(action.kind, action.stage): time for action, time in self.stage_averaged().actions.items()}
        stages = 1 + max((stage for _, stage in means), default=-1)
        return tuple(_stage_time(means, stage) for stage in range(stages))


def _stage_time(means: Mapping[tuple[Kind, int], ActionTime], stage: int) -> StageTime:
    forward = means.get((Kind.F, stage))
    kinds = (Kind.I, Kind.W) if (Kind.W, stage) in means else (Kind.B,)
    backward = [means[kind, stage] for kind in kinds if (kind, stage) in means]
    if forward is None or len(backward) < len(kinds):
        raise BadInput(f"no times of stage {stage}'s forward and backward", remedy="record every pass of every stage")
    return StageTime(
        forward=forward.full,
        backward=sum(time.full for time in backward),
        backward_frozen=sum(time.frozen for time in backward),
    )


def _mean(times: Sequence[ActionTime]) -> ActionTime:
    full, frozen = fmean(time.full for time in times), fmean(time.frozen for time in times)
    curve = tuple((ratio, fmean(time.at(ratio) for time in times)) for ratio, _ in times[0].curve)
    return ActionTime(full=full, frozen=min(full, frozen), curve=curve)
