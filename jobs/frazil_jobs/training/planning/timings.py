"""How long each action of a pipeline takes, with nothing frozen and with everything frozen.

In between, time is linear in the freeze ratio (TimelyFreeze, section 1.1 of its model): seconds = full - ratio · (full -
frozen). That holds for every stage but the first, whatever tensors are frozen, and for the first when whole blocks are
frozen from the front: only then does the chain of input gradients end early (see `curve`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from frazil_jobs.training.planning.actions import Action, Order

Provenance: TypeAlias = Literal["recorded", "estimated", "emulated"]
"""Measured in a run; counted from the model's operations; or given to layers that sleep."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ActionKey = Annotated[
    Action,
    BeforeValidator(lambda value: Action.parse(value) if isinstance(value, str) else value),
    PlainSerializer(str, return_type=str),
]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ActionTime(_Value):
    """Seconds of one action."""

    full: Seconds
    """With nothing frozen."""
    frozen: Seconds
    """With every parameter of the stage frozen; for F and I the same as `full`."""
    curve: tuple[tuple[float, Seconds], ...] = ()
    """Where time is not linear: further (ratio, seconds) points between (0, full) and (1, frozen), by ratio."""

    def at(self, ratio: float) -> float:
        """Seconds at a freeze ratio between 0 and 1."""
        raise NotImplementedError

    @property
    def saving(self) -> float:
        """Seconds that freezing everything saves."""
        return self.full - self.frozen


class StageTime(_Value):
    """Seconds of the passes of one microbatch through one stage, from which those of every schedule follow."""

    forward: Seconds
    backward: Seconds
    """Full backward, nothing frozen."""
    backward_frozen: Seconds
    """Full backward with every parameter frozen: the input's gradient alone. 0 for the first stage, which needs none."""


class Timings(_Value):
    """Seconds of every action of one order."""

    provenance: Provenance
    actions: Mapping[ActionKey, ActionTime]
    hop_seconds: tuple[Seconds, ...]
    """From the end of a stage's pass to the start of its neighbour's on another rank: one for each boundary between stage
    s and s + 1, the same in both directions. Stages on the same rank pay nothing, whatever is written here."""
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
        note: str = "",
    ) -> Self:
        """The timings of an order in which every microbatch takes a stage equally long.

        A split backward takes what the full one takes: I its frozen part, W the rest, and W frozen nothing.
        """
        raise NotImplementedError

    def stage_averaged(self) -> Self:
        """The same with each action's seconds replaced by the mean of its kind and stage, against noise."""
        raise NotImplementedError

    def scaled(self, factor: float) -> Self:
        """All seconds multiplied."""
        raise NotImplementedError
