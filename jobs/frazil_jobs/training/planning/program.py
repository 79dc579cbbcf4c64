"""How much of each backward to freeze: a linear program over the DAG, solved by HiGHS.

Variables are the start of every action and the freeze ratio of every freezable one; an action that waits for another
starts no earlier than that one's start plus its time at its ratio (`constraints`). Two objectives:

- Published (arXiv 2602.05754 and its release): 999999 · makespan in ms + the sum of ratios, with one cap on every stage's
  mean ratio.
- Lexicographic, ours: first the least makespan; then, within a slack of it, the least weighted sum of ratios, under a cap
  for each stage, on timings averaged by stage; then, with no more freezing than that, ratios as even over the microbatches
  of a stage as can be, since a microbatch's position should not decide what is learned from it.

Ours also leaves every tensor a microbatch that trains it, so that masks by cost can do what is planned, to the tensor: a
stage's ratios sum to one less than its microbatches at most; and at the first stage, whose masks are prefixes of its
tensors, one microbatch's ratio is 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Annotated, Final, Literal, Self

from pydantic import Field
from scipy.optimize import OptimizeResult

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning import dag, simulator
from frazil_jobs.training.planning.actions import Action
from frazil_jobs.training.planning.canonical import ActionKey, Canonical
from frazil_jobs.training.planning.constraints import Constraints, constraints_of
from frazil_jobs.training.planning.dag import Dag
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.timings import Timings

Ratio = Annotated[float, Field(ge=0, le=1)]
PUBLISHED_WEIGHT: Final = 999_999.0
"""Of a millisecond of makespan against a freeze ratio of 1, in the published objective."""
_ROOM: Final = 1e-12
"""Part by which a later objective may exceed the optimum of an earlier one, for rounding."""


class FreezingSettings(Canonical):
    """What a plan may do."""

    objective: Literal["Published", "Lexicographic"] = "Lexicographic"
    max_ratio: Ratio = 0.3
    """Largest mean ratio of a stage over its microbatches."""
    stage_max_ratios: tuple[Ratio, ...] | None = None
    """Budgets by stage, in place of `max_ratio`."""
    slack: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Lexicographic: part by which the makespan may exceed the least, to freeze less."""
    stage_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Lexicographic: how much freezing a stage hurts, when the least freezing is chosen. Left out: all alike."""
    stage_averaged: bool = True
    """Plan on timings averaged by kind and stage, so that the plan doesn't follow their noise."""
    trains_all: bool = True
    """Lexicographic: leave every tensor at least one microbatch of a batch that trains it."""

    @classmethod
    def published(cls, max_ratio: float = 0.8) -> Self:
        """TimelyFreeze as published, for its runs: each action's own time, no slack."""
        return cls(objective="Published", max_ratio=max_ratio, slack=0.0, stage_averaged=False, trains_all=False)

    @classmethod
    def of(cls, freezing: Freezing) -> Self:
        """Those of a TrainingJob whose method is Timely. Selection Uniform without slack is the published method."""
        max_ratio, slack = float(freezing.max_freeze_ratio), float(freezing.slack_percent) / 100
        if freezing.selection == "Uniform" and slack == 0:
            return cls.published(max_ratio)
        return cls(max_ratio=max_ratio, slack=slack, trains_all=freezing.selection == "CostAware")

    def caps(self, order: ScheduleOrder) -> tuple[float, ...]:
        """The largest mean ratio of each stage. Raises BadInput for budgets of another number of stages."""
        most = 1 - 1 / order.microbatches if self.trains_all else 1.0
        budgets = _per_stage(self.stage_max_ratios, self.max_ratio, order.stages, "stage_max_ratios")
        return tuple(min(budget, most) for budget in budgets)

    def weights(self, stages: int) -> tuple[float, ...]:
        """What freezing costs in each stage. Raises BadInput for weights of another number of stages."""
        return _per_stage(self.stage_weights, 1.0, stages, "stage_weights")


class FreezingPlan(Canonical):
    """Freeze ratios of all freezable actions, and what they promise. `digest` is what ranks compare."""

    ratios: Mapping[ActionKey, Ratio]
    """By action, 0 to 1: the share of the time of its dW that is skipped (at stage 0, of its whole backward)."""
    makespan: float
    """Seconds of a step with these ratios, as simulated."""
    makespan_unfrozen: float
    """Seconds of a step with nothing frozen."""
    makespan_frozen: float
    """Seconds of a step with everything frozen: no plan is shorter."""
    stage_means: tuple[Ratio, ...]
    """Mean ratio over microbatches, by stage."""
    mean_freeze_ratio: Ratio
    """Mean ratio over all freezable actions."""

    @property
    def speedup(self) -> float:
        """kappa: the unfrozen makespan over this one."""
        return self.makespan_unfrozen / self.makespan if self.makespan else 1.0

    @property
    def speedup_bound(self) -> float:
        """What freezing everything would give; inf where the step would then take no time."""
        return self.makespan_unfrozen / self.makespan_frozen if self.makespan_frozen else float("inf")

    @property
    def gradient_rate(self) -> float:
        """kappa · (1 - mean ratio): gradients computed per second, relative to no freezing. Below 1, freezing loses more
        gradients than it saves time."""
        return self.speedup * (1 - self.mean_freeze_ratio)


def solve(order: ScheduleOrder, timings: Timings, settings: FreezingSettings) -> FreezingPlan:
    """The best plan under `settings`. Raises BadInput for an order that can't run or timings of another order."""
    used = timings.stage_averaged() if settings.stage_averaged else timings
    graph = dag.build(order, used.hop_seconds)
    simulator.seconds_of(graph, used)
    if settings.objective == "Published":
        constraints = constraints_of(graph, used, settings.caps(order))
        return plan_of(order, used, constraints.ratios(_published(constraints)))
    ratios = _least(order, graph, used, settings, lambda soonest: soonest * (1 + settings.slack))
    assert ratios is not None, "the least makespan is within its own slack"
    return plan_of(order, used, ratios)


def least_freezing(
    order: ScheduleOrder, timings: Timings, *, within: float, settings: FreezingSettings
) -> FreezingPlan | None:
    """The plan that freezes least of those whose step takes at most `within` seconds; None where `settings` allow none."""
    used = timings.stage_averaged() if settings.stage_averaged else timings
    graph = dag.build(order, used.hop_seconds)
    ratios = _least(order, graph, used, settings, lambda soonest: within if soonest <= within * (1 + _ROOM) else None)
    return plan_of(order, used, ratios) if ratios is not None else None


def plan_of(order: ScheduleOrder, timings: Timings, ratios: Mapping[Action, float]) -> FreezingPlan:
    """What given ratios promise: any plan, such as a uniform one. Actions left out have ratio 0."""
    freezable = sorted(action for action in order.actions if action.kind.freezable)
    whole = {action: ratios.get(action, 0.0) for action in freezable}
    by_stage: dict[int, list[float]] = defaultdict(list)
    for action, ratio in whole.items():
        by_stage[action.stage].append(ratio)
    return FreezingPlan(
        ratios=whole,
        makespan=simulator.simulate(order, timings, whole).makespan,
        makespan_unfrozen=simulator.simulate(order, timings).makespan,
        makespan_frozen=simulator.simulate(order, timings, dict.fromkeys(freezable, 1.0)).makespan,
        stage_means=tuple(min(1.0, fmean(by_stage[stage])) for stage in range(order.stages)),
        mean_freeze_ratio=min(1.0, fmean(whole.values())),
    )


def uniform(order: ScheduleOrder, ratio: float) -> dict[Action, float]:
    """The same ratio for every freezable action."""
    return {action: ratio for action in order.actions if action.kind.freezable}


def _published(constraints: Constraints) -> OptimizeResult:
    """One objective with a weight so large that the makespan comes first; here divided by it, which HiGHS likes better."""
    each = 1 / (PUBLISHED_WEIGHT * constraints.unit * 1000)
    weights = {constraints.ratio(at): each for at in range(len(constraints.freezable))}
    return constraints.minimise(constraints.costs({constraints.makespan: 1.0, **weights}))


def _least(
    order: ScheduleOrder,
    graph: Dag,
    timings: Timings,
    settings: FreezingSettings,
    within: Callable[[float], float | None],
    unfrozen: frozenset[Action] = frozenset(),
) -> dict[Action, float] | None:
    """Ratios of the least freezing whose makespan is at most what `within` says of the least one, in seconds; of such plans
    the evenest. None where it says None. Each objective in turn, with the ones before it kept as constraints.

    Where every tensor is to be trained, the first stage's microbatch that freezes least freezes nothing.
    """
    constraints = constraints_of(graph, timings, settings.caps(order), unfrozen=unfrozen)
    soonest = float(constraints.minimise(constraints.costs({constraints.makespan: 1.0})).fun)
    limit = within(soonest * constraints.unit)
    if limit is None:
        return None
    constraints.rows.add({constraints.makespan: 1.0}, limit / constraints.unit * (1 + _ROOM))
    stage_weights = settings.weights(order.stages)
    weights = {constraints.ratio(at): stage_weights[a.stage] for at, a in enumerate(constraints.freezable)}
    found = constraints.minimise(constraints.costs(weights))
    if settings.trains_all and not unfrozen:
        ratios = constraints.ratios(found)
        first = min(
            (action for action in graph.actions if action.stage == 0 and action.kind.freezable),
            key=lambda action: ratios.get(action, 0.0),
        )
        if ratios.get(first, 0.0) > 0:
            return _least(order, graph, timings, settings, within, frozenset({first}))
        if first in ratios:
            constraints.rows.add({constraints.ratio(constraints.freezable.index(first)): 1.0}, 0.0)
    constraints.rows.add(weights, found.fun * (1 + _ROOM) + _ROOM)
    largest = {constraints.largest(stage): stage_weights[stage] for stage in range(constraints.stages)}
    return constraints.ratios(constraints.minimise(constraints.costs(largest)))


def _per_stage(given: Sequence[float] | None, default: float, stages: int, name: str) -> tuple[float, ...]:
    if given is None:
        return (default,) * stages
    if len(given) != stages:
        raise BadInput(f"{len(given)} values for {stages} stages", field=name, remedy="give one for each stage")
    return tuple(given)
