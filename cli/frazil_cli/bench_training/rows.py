"""What `frazil bench training` compares: every schedule with every way to freeze, as plans and what they predict.

The model is the published 8B run's (planning.published), all its times multiplied by one factor so that the shortest action
takes `least_ms`; nothing is tuned. "published" names the plan of TimelyFreeze's program (its objective, one cap for every
stage, no slack, no communication, each action's own time) from those times without noise, with tensors drawn uniformly and
the first stage's weighted towards the front, as in its release.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from frazil_jobs.api.pipelining import Freezing, Schedule
from frazil_jobs.training.planning import program, published, simulator
from frazil_jobs.training.planning.comparison import as_drawn
from frazil_jobs.training.planning.models import BlockTime, Cut, ModelTime
from frazil_jobs.training.planning.partition import cut, uniform
from frazil_jobs.training.planning.program import FreezingPlan, FreezingSettings
from frazil_jobs.training.planning.schedules import STAGES_A_RANK, ScheduleOrder, order_of
from frazil_jobs.training.planning.timings import Timings

TENSORS = 9
"""Of a block, see emulated.py."""
RANKS, MICROBATCHES = published.RANKS, published.MICROBATCHES
SCHEDULES: tuple[Schedule, ...] = tuple(STAGES_A_RANK)
AS_1F1B = "ours at 1F1B's published speed"
OURS = Freezing(warmup_steps=0, ramp_steps=0, replan_drift_percent="0")
PUBLISHED = OURS.model_copy(update={"selection": "Uniform", "rescale_gradients": False})


@dataclass(frozen=True)
class Row:
    """One way to train."""

    schedule: Schedule
    method: str
    cut: Cut
    order: ScheduleOrder
    timings: Timings
    """Of its actions, as emulated; for tensors drawn at random, with the first stage's curve."""
    plan: FreezingPlan
    freezing: Freezing
    """How tensors are chosen."""

    @property
    def predicted(self) -> float:
        """Seconds of a step by the simulator."""
        return simulator.simulate(self.order, self.timings, self.plan.ratios).makespan


def scaled_model(least_ms: float) -> ModelTime:
    """The published model, slowed down until no action of any schedule takes less than `least_ms`, other than 0."""
    orders = [order_of(schedule, ranks=RANKS, microbatches=MICROBATCHES) for schedule in SCHEDULES]
    shortest = min(
        seconds
        for order in orders
        for held in _cuts(published.MODEL, order)
        for time in published.MODEL.timings(held, order).actions.values()
        for seconds in (time.full, time.frozen)
        if seconds > 0
    )
    factor = max(1.0, least_ms / 1000 / shortest)

    def scale(block: BlockTime) -> BlockTime:
        return BlockTime(
            forward=factor * block.forward,
            backward_input=factor * block.backward_input,
            backward_weight=factor * block.backward_weight,
        )

    model = published.MODEL
    return ModelTime(blocks=tuple(map(scale, model.blocks)), provenance="emulated")


def rows_of(model: ModelTime, schedules: Sequence[Schedule], *, max_ratio: float) -> list[Row]:
    """All rows, schedule by schedule. The first is the baseline of the speed-ups: 1F1B with nothing frozen."""
    wanted = [schedule for schedule in ("1F1B", *SCHEDULES) if schedule in {"1F1B", *schedules}]
    rows: list[Row] = []
    for schedule in dict.fromkeys(wanted):
        target = next((row.predicted for row in rows if row.method == "published"), None)  # that of 1F1B
        rows += _rows(model, schedule, max_ratio, target)
    return rows


def published_plan(max_ratio: float) -> dict[str, Any]:
    """What "published" names, to the parameter."""
    return {
        **FreezingSettings.published(max_ratio).model_dump(mode="json"),
        "selection": PUBLISHED.selection,
        "rescale_gradients": PUBLISHED.rescale_gradients,
        "timings": "each action's own, without noise and without communication",
        "partition": "Uniform",
    }


def _rows(model: ModelTime, schedule: Schedule, max_ratio: float, target: float | None) -> Iterator[Row]:
    """Those of one schedule. `target`: the step of 1F1B's published row, for schedules to be as fast as."""
    order = order_of(schedule, ranks=RANKS, microbatches=MICROBATCHES)
    even, balanced = _cuts(model, order)
    timings = model.timings(even, order)
    theirs = program.solve(order, timings, FreezingSettings.published(max_ratio))
    ours = program.solve(order, timings, FreezingSettings(max_ratio=max_ratio))

    def row(
        method: str, plan: FreezingPlan, *, at: Cut = even, times: Timings = timings, freezing: Freezing = OURS
    ) -> Row:
        return Row(schedule=schedule, method=method, cut=at, order=order, timings=times, plan=plan, freezing=freezing)

    def flat(ratio: float) -> FreezingPlan:
        return program.plan_of(order, timings, program.uniform(order, ratio))

    yield row("none", flat(0.0))
    times = model.timings(balanced, order)
    yield row("balanced", program.plan_of(order, times, {}), at=balanced, times=times)
    yield row("uniform at cap", flat(max_ratio))
    yield row("uniform at equal mean", flat(ours.mean_freeze_ratio))
    drawn = as_drawn(timings, model, TENSORS * even.sizes[0])
    as_published = row("published", theirs, times=drawn, freezing=PUBLISHED)
    yield as_published
    yield row("ours", ours)
    # what the published plan delivers, its first stage's tensors drawn as published
    for method, within in (("ours at published speed", as_published.predicted), (AS_1F1B, target)):
        if within is not None:
            settings = FreezingSettings(max_ratio=max_ratio)
            if (as_fast := program.least_freezing(order, timings, within=within, settings=settings)) is not None:
                yield row(method, as_fast)


def _cuts(model: ModelTime, order: ScheduleOrder) -> tuple[Cut, Cut]:
    """As many blocks each, and balanced."""
    return uniform(len(model.blocks), order.stages), cut("Balanced", model, order)
