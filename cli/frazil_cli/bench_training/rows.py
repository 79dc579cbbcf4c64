"""What `frazil bench training` compares: every schedule with every way to freeze, as plans and what they predict.

The model is the published 8B run's (planning.published), all its times multiplied by one factor so that the shortest action
takes `least_ms`; nothing is tuned. "published" names the plan of TimelyFreeze's program (its objective, one cap for every
stage, no slack, no communication, each action's own time) from those times without noise, with tensors drawn uniformly and
the first stage's weighted towards the front, as in its release.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    shortest = min(
        seconds
        for schedule in SCHEDULES
        for time in _timings(published.MODEL, schedule).actions.values()
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
    return [row for schedule in dict.fromkeys(wanted) for row in _rows(model, schedule, max_ratio)]


def _rows(model: ModelTime, schedule: Schedule, max_ratio: float) -> Iterator[Row]:
    order = order_of(schedule, ranks=RANKS, microbatches=MICROBATCHES)
    even = uniform(len(model.blocks), order.stages)
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
    balanced = cut("Balanced", model, order)
    times = model.timings(balanced, order)
    yield row("balanced", program.plan_of(order, times, {}), at=balanced, times=times)
    yield row("uniform at cap", flat(max_ratio))
    yield row("uniform at equal mean", flat(ours.mean_freeze_ratio))
    drawn = as_drawn(timings, model, TENSORS * even.sizes[0])
    as_published = row("published", theirs, times=drawn, freezing=PUBLISHED)
    yield as_published
    yield row("ours", ours)
    # what the published plan delivers, its first stage's tensors drawn as published
    as_fast = program.least_freezing(
        order, timings, within=as_published.predicted, settings=FreezingSettings(max_ratio=max_ratio)
    )
    if as_fast is not None:
        yield row("ours at published speed", as_fast)


def _timings(model: ModelTime, schedule: Schedule) -> Timings:
    order = order_of(schedule, ranks=RANKS, microbatches=MICROBATCHES)
    return model.timings(uniform(len(model.blocks), order.stages), order)
