"""How much of each backward to freeze: a linear program over the DAG, solved by HiGHS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.timings import ActionKey, Timings

Ratio = Annotated[float, Field(ge=0, le=1)]


class FreezingSettings(BaseModel):
    """What a plan is allowed to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Literal["Published", "Lexicographic"] = "Lexicographic"
    """Published: 999999 · makespan (ms) + sum of ratios, as the paper's release. Lexicographic (ours): the least makespan
    first, then within `slack` of it the least freezing."""
    max_ratio: Ratio = 0.3
    """Largest mean ratio of a stage over its microbatches."""
    stage_max_ratios: tuple[Ratio, ...] | None = None
    """Budgets by stage, in place of `max_ratio`."""
    slack: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Part by which the makespan may exceed the least, to freeze less."""
    stage_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """How much freezing a stage hurts, for choosing the least freezing. Left out: all alike."""
    stage_averaged: bool = True
    """Plan on timings averaged by kind and stage, so that the plan doesn't follow their noise."""

    @classmethod
    def of(cls, freezing: Freezing) -> Self:
        """The settings that a TrainingJob asks for."""
        raise NotImplementedError


class FreezingPlan(BaseModel):
    """Freeze ratios of all freezable actions, and what they promise. The JSON is canonical: equal plans have equal text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratios: Mapping[ActionKey, Ratio]
    """By action, 0 to 1: the share of the stage's dW time that is skipped (at stage 0, of its whole backward)."""
    makespan: float
    """Seconds of a step, as simulated from the ratios."""
    makespan_unfrozen: float
    stage_means: tuple[Ratio, ...]
    """Mean ratio over microbatches, by stage."""
    mean_freeze_ratio: Ratio
    """Mean ratio over all freezable actions."""

    @property
    def speedup(self) -> float:
        """kappa: the unfrozen makespan over this one."""
        raise NotImplementedError

    @property
    def gradient_rate(self) -> float:
        """kappa · (1 - mean ratio): gradients computed per second, relative to no freezing. Below 1, freezing costs more
        gradients than it saves time."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, floats that come back bit for bit."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`. Raises BadInput."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, in hex: ranks compare it."""
        raise NotImplementedError


def solve(order: ScheduleOrder, timings: Timings, settings: FreezingSettings) -> FreezingPlan:
    """The best plan. Raises BadInput for an order that can't run or timings of another order."""
    raise NotImplementedError
