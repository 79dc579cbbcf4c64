"""Every schedule and way to freeze side by side, as simulated: what a user chooses from.

All rows have the same model, ranks and microbatches. `speedup` and `gradient_rate` are relative to 1F1B over stages of as
many blocks each, with nothing frozen: what training over a pipeline usually is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Final, Literal

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning import noise, program, simulator
from frazil_jobs.training.planning.actions import Kind
from frazil_jobs.training.planning.models import Cut, ModelTime
from frazil_jobs.training.planning.partition import cut, uniform
from frazil_jobs.training.planning.program import FreezingPlan, FreezingSettings
from frazil_jobs.training.planning.schedules import STAGES_A_RANK, ScheduleOrder, microbatches_held, order_of
from frazil_jobs.training.planning.timings import Timings

NOISE: Final = 0.01
RECORDINGS: Final = 8
Method = Literal[
    "none",
    "balanced",
    "uniform at cap",
    "uniform at equal mean",
    "published",
    "published as run",
    "ours",
    "ours at 0.3",
]
METHODS: Final[Mapping[Method, str]] = {
    "none": "nothing frozen, as many blocks a stage",
    "balanced": "nothing frozen, blocks cut so that the step is shortest",
    "uniform at cap": "every action frozen to the cap",
    "uniform at equal mean": "every action frozen to the mean ratio of ours",
    "published": "TimelyFreeze's plan as it predicts, from timings without noise",
    "published as run": f"its plans from timings with {NOISE:.0%} noise (mean of {RECORDINGS} recordings), tensors of the "
    "first stage drawn at random as published",
    "ours": "least time, then least freezing within the slack",
    "ours at 0.3": "the same with the default cap",
}


@dataclass(frozen=True)
class Row:
    """One way to train."""

    schedule: Schedule
    method: Method
    makespan: float
    """Seconds of a step."""
    speedup: float
    mean_freeze_ratio: float
    gradient_rate: float
    """Gradients computed per second: speedup · (1 - mean ratio)."""
    activations_held: float
    """Most microbatches whose activations of a rank's share of the model are kept at once."""


def compare(
    model: ModelTime, *, ranks: int, microbatches: int, settings: FreezingSettings, schedules: Sequence[Schedule] = ()
) -> list[Row]:
    """Rows of all schedules (or those given) that the model and the microbatches allow. `settings` are those of "ours"."""
    baseline = _Case("1F1B", model, ranks, microbatches).unfrozen
    cases = _cases(model, ranks, microbatches, schedules)
    return [case.row(baseline, *measured) for case in cases for measured in case.measured(settings)]


@dataclass(frozen=True)
class Reach:
    """The least freezing with which a schedule is as fast as a given step."""

    schedule: Schedule
    plan: FreezingPlan | None
    """None where no freezing is enough."""


def reach(
    model: ModelTime, *, ranks: int, microbatches: int, within: float, schedules: Sequence[Schedule] = ()
) -> list[Reach]:
    """What each schedule has to freeze for a step of `within` seconds."""
    free = FreezingSettings(max_ratio=1.0)
    return [
        Reach(case.schedule, program.least_freezing(case.order, case.timings, within=within, settings=free))
        for case in _cases(model, ranks, microbatches, schedules)
    ]


def as_drawn(timings: Timings, model: ModelTime, tensors: int = 72) -> Timings:
    """The first stage's times when its frozen tensors are drawn at random, as published: dX goes on to the front as long as
    any of its `tensors` is not frozen, so only dW is saved until the last one. (9 tensors a block of Llama, 8 blocks.)"""
    blocks = model.blocks[0]
    share = blocks.backward_weight / (blocks.backward_weight + blocks.backward_input or 1.0)
    last = 1 - 1 / tensors
    actions = {
        action: time.model_copy(update={"curve": ((last, time.full - last * share * time.saving),)})
        if (action.kind, action.stage) == (Kind.B, 0)
        else time
        for action, time in timings.actions.items()
    }
    return timings.model_copy(update={"actions": actions})


def _cases(model: ModelTime, ranks: int, microbatches: int, schedules: Sequence[Schedule]) -> Iterator[_Case]:
    """Those that the model has blocks for, and the microbatches divide for."""
    for schedule in schedules or tuple(STAGES_A_RANK):
        with suppress(BadConfiguration):
            yield _Case(schedule, model, ranks, microbatches)


class _Case:
    """One schedule of a model, with as many blocks a stage."""

    def __init__(self, schedule: Schedule, model: ModelTime, ranks: int, microbatches: int) -> None:
        self.schedule: Schedule = schedule
        self.model = model
        self.order: ScheduleOrder = order_of(schedule, ranks=ranks, microbatches=microbatches)
        self.cut: Cut = uniform(len(model.blocks), self.order.stages)
        self.timings = model.timings(self.cut, self.order)
        self.unfrozen = simulator.simulate(self.order, self.timings).makespan

    def measured(self, settings: FreezingSettings) -> Iterator[tuple[Method, float, float]]:
        """Every method's makespan in seconds and mean ratio."""
        yield "none", self.unfrozen, 0.0
        balanced = cut("Balanced", self.model, self.order)
        if balanced != self.cut:
            yield "balanced", simulator.simulate(self.order, self.model.timings(balanced, self.order)).makespan, 0.0
        cap = settings.max_ratio
        ours = program.solve(self.order, self.timings, settings)
        yield "uniform at cap", self._uniform(cap), cap
        yield "uniform at equal mean", self._uniform(ours.mean_freeze_ratio), ours.mean_freeze_ratio
        published = program.solve(self.order, self.timings, FreezingSettings.published(cap))
        yield "published", published.makespan, published.mean_freeze_ratio
        yield "published as run", *self._published_as_run(cap)
        yield "ours", ours.makespan, ours.mean_freeze_ratio
        default = FreezingSettings()
        if default.max_ratio < cap:
            plan = program.solve(self.order, self.timings, default)
            yield "ours at 0.3", plan.makespan, plan.mean_freeze_ratio

    def row(self, baseline: float, method: Method, makespan: float, ratio: float) -> Row:
        """What a makespan and a mean ratio mean beside the baseline's makespan."""
        return Row(
            schedule=self.schedule,
            method=method,
            makespan=makespan,
            speedup=baseline / makespan,
            mean_freeze_ratio=ratio,
            gradient_rate=baseline / makespan * (1 - ratio),
            activations_held=max(microbatches_held(self.order)),
        )

    def _uniform(self, ratio: float) -> float:
        return simulator.simulate(self.order, self.timings, program.uniform(self.order, ratio)).makespan

    def _published_as_run(self, cap: float) -> tuple[float, float]:
        drawn, published = as_drawn(self.timings, self.model), FreezingSettings.published(cap)
        recorded = (noise.noisy(self.timings, sigma=NOISE, seed=seed) for seed in range(RECORDINGS))
        plans = [program.solve(self.order, timings, published) for timings in recorded]
        makespans = [simulator.simulate(self.order, drawn, plan.ratios).makespan for plan in plans]
        return fmean(makespans), fmean(plan.mean_freeze_ratio for plan in plans)
