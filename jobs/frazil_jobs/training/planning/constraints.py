"""What every freezing plan obeys, as a sparse matrix for HiGHS, and the minimum of a cost under it.

Columns: the start of each action, the makespan, the ratio of each action that freezing shortens, and the largest ratio of
each stage. Times are in units of `unit` seconds, so that HiGHS's absolute tolerances mean the same for any model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, linprog
from scipy.sparse import csr_array

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning.actions import Action
from frazil_jobs.training.planning.dag import Dag
from frazil_jobs.training.planning.timings import ActionTime, Timings

_TOLERANCE: Final = 1e-10
_EXACT: Final = {"primal_feasibility_tolerance": _TOLERANCE, "dual_feasibility_tolerance": _TOLERANCE}


@dataclass
class Rows:
    """Inequalities `sum of coefficients · columns <= limit`, grown row by row."""

    columns: int
    _row: list[int] = field(default_factory=list)
    _column: list[int] = field(default_factory=list)
    _value: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)

    def add(self, coefficients: Mapping[int, float], limit: float) -> None:
        """One more."""
        for column, value in coefficients.items():
            self._row.append(len(self.limits))
            self._column.append(column)
            self._value.append(value)
        self.limits.append(limit)

    @property
    def matrix(self) -> csr_array:
        """All of them, of shape (rows, columns)."""
        shape = (len(self.limits), self.columns)
        return csr_array((self._value, (self._row, self._column)), shape=shape)


@dataclass(frozen=True)
class Constraints:
    """The inequalities of one order, timings and caps, and which column means what."""

    rows: Rows
    freezable: tuple[Action, ...]
    """Those that freezing shortens; the others' ratios are 0."""
    stages: int
    starts: int
    unit: float

    @property
    def makespan(self) -> int:
        """The makespan's column."""
        return self.starts

    def ratio(self, at: int) -> int:
        """The column of `freezable[at]`'s ratio."""
        return self.starts + 1 + at

    def largest(self, stage: int) -> int:
        """The column of a stage's largest ratio."""
        return self.starts + 1 + len(self.freezable) + stage

    def costs(self, weights: Mapping[int, float]) -> NDArray[np.float64]:
        """A cost from the weight of each column; 0 for those left out."""
        costs = np.zeros(self.rows.columns)
        for column, weight in weights.items():
            costs[column] = weight
        return costs

    def minimise(self, costs: NDArray[np.float64]) -> OptimizeResult:
        """The least cost. `x` has the columns; `ineqlin.marginals` and `upper.marginals` prove that it is the least."""
        ratios = len(self.freezable) + self.stages
        bounds = [(0.0, None)] * (self.starts + 1) + [(0.0, 1.0)] * ratios
        rows, limits = self.rows.matrix, self.rows.limits
        for options in (_EXACT, {}):  # HiGHS gives up on tight tolerances where costs differ by many orders
            found = linprog(costs, A_ub=rows, b_ub=limits, bounds=bounds, method="highs", options=options)
            if found.status == 0:
                return found
        raise ArithmeticError(f"HiGHS found no freezing plan: {found.message}")

    def ratios(self, found: OptimizeResult) -> dict[Action, float]:
        """Ratios by action, in 0 to 1 exactly, and to ten digits, which is what HiGHS answers for."""
        return {
            action: min(1.0, max(0.0, round(float(found.x[self.ratio(at)]), 10)))
            for at, action in enumerate(self.freezable)
        }


def constraints_of(
    graph: Dag, timings: Timings, caps: Sequence[float], *, unfrozen: Collection[Action] = ()
) -> Constraints:
    """Those of a DAG, with `caps` on the mean ratio of each stage over all its freezable actions. `unfrozen` have ratio 0.

    Raises BadInput for a curve that is not convex: no linear program can tell what freezing there is worth."""
    times = [timings.actions[action] for action in graph.actions]
    freezable = tuple(
        action
        for action, time in zip(graph.actions, times, strict=True)
        if action.kind.freezable and time.saving > 0 and action not in unfrozen
    )
    starts, stages = len(graph.actions), len(caps)
    constraints = Constraints(
        rows=Rows(columns=starts + 1 + len(freezable) + stages),
        freezable=freezable,
        stages=stages,
        starts=starts,
        unit=max((time.full for time in times), default=0.0) or 1.0,
    )
    column = {action: constraints.ratio(at) for at, action in enumerate(freezable)}
    rows = constraints.rows
    pieces = [_pieces(action, time, constraints.unit) for action, time in zip(graph.actions, times, strict=True)]
    followed = {source for waits in graph.waits for source, _ in waits}

    def follows(source: int, target: int, late: float) -> None:
        for seconds, slope in pieces[source]:
            row = {source: 1.0, target: -1.0}
            if graph.actions[source] in column:
                row[column[graph.actions[source]]] = slope
            rows.add(row, -seconds - late / constraints.unit)

    for target, waits in enumerate(graph.waits):
        for source, late in waits:
            follows(source, target, late)
    for last in set(range(starts)) - followed:
        follows(last, constraints.makespan, 0.0)
    _add_caps(constraints, graph, column, caps)
    return constraints


def _add_caps(constraints: Constraints, graph: Dag, column: Mapping[Action, int], caps: Sequence[float]) -> None:
    """The mean of each stage's ratios is at most its cap, and none is above the stage's largest."""
    of_stage: dict[int, list[Action]] = defaultdict(list)
    for action in graph.actions:
        if action.kind.freezable:
            of_stage[action.stage].append(action)
    for stage, actions in sorted(of_stage.items()):
        columns = [column[action] for action in actions if action in column]
        constraints.rows.add(dict.fromkeys(columns, 1.0), caps[stage] * len(actions))
        for ratio in columns:
            constraints.rows.add({ratio: 1.0, constraints.largest(stage): -1.0}, 0.0)


def _pieces(action: Action, time: ActionTime, unit: float) -> list[tuple[float, float]]:
    """(time at ratio 0, slope) of each line under the action's time, in units; their maximum is the time."""
    pieces = []
    for (left, before), (right, after) in pairwise(time.points):
        slope = (after - before) / (right - left)
        pieces.append(((before - left * slope) / unit, slope / unit))
    if any(later < earlier - 1e-12 for (_, earlier), (_, later) in pairwise(pieces)):
        raise BadInput(
            f"the time of {action} falls faster the more is frozen already",
            remedy="freeze whole blocks from the front at stage 0, or plan with its linear model",
        )
    return pieces
