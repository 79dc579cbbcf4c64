"""From measured actions to the times that a plan is made from: a line through (frozen share, seconds) by kind and stage.

No phase in which everything is frozen is needed: a few microbatches with some of their dW skipped give the slope.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from frazil_jobs.training.planning.actions import Action, Kind
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.simulator import simulate
from frazil_jobs.training.planning.timings import ActionTime, Timings

KEPT = 128
"""Newest samples kept of each kind, stage and eighth of the frozen share."""
_EIGHTHS = 8
_APART = 0.2
"""Two samples whose frozen shares differ by less say nothing of the slope."""
_FROZEN_PART = 0.5
"""Part of a full backward that is left with all frozen, until a frozen one was seen: dX and dW are about equal."""

Group = tuple[Kind, int, int | None]
"""Kind, stage, and the microbatch where each has times of its own."""
Line = tuple[float, float]
"""Seconds of an action with nothing and with everything frozen."""


@dataclass(frozen=True)
class Sample:
    """One action as it ran."""

    action: Action
    frozen: float
    """Share of the stage's dW cost that was skipped."""
    seconds: float


class Samples:
    """The newest samples of one rank's stages, by kind and stage, whose microbatches take equally long; or, `by_action`, as
    published: of each action for itself."""

    def __init__(self, kept: int = KEPT, *, by_action: bool = False) -> None:
        self._by_action = by_action
        self._groups: dict[Group, dict[int, deque[tuple[float, float]]]] = defaultdict(
            lambda: defaultdict(lambda: deque(maxlen=kept))
        )

    def add(self, samples: Iterable[Sample]) -> None:
        """Note what ran."""
        for sample in samples:
            eighth = round(sample.frozen * _EIGHTHS)
            action = sample.action
            group = action.kind, action.stage, action.microbatch if self._by_action else None
            self._groups[group][eighth].append((sample.frozen, sample.seconds))

    def clear(self) -> None:
        """Begin anew."""
        self._groups.clear()

    def lines(self, earlier: Mapping[str, Line] | None = None) -> dict[str, Line]:
        """Seconds with nothing and with everything frozen, by group, as text (`_text`: JSON has no tuples as keys).

        Where too little was frozen to tell, the share that freezing saved in `earlier` counts.
        """
        made = medians if self._by_action else fit
        return {
            _text(group): made(group[0], group[1], _all(eighths), (earlier or {}).get(_text(group)))
            for group, eighths in self._sorted()
        }

    def state_dict(self) -> dict[str, list[list[float]]]:
        """All samples."""
        return {_text(group): [list(point) for point in _all(eighths)] for group, eighths in self._sorted()}

    def _sorted(self) -> list[tuple[Group, Mapping[int, Iterable[tuple[float, float]]]]]:
        return sorted(self._groups.items(), key=lambda item: (item[0][:2], item[0][2] or 0))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self._groups.clear()
        for text, points in state.items():
            action = Action.parse(text if self._by_action else f"{text}0")
            self.add(Sample(action, float(frozen), float(seconds)) for frozen, seconds in points)


def _text(group: Group) -> str:
    kind, stage, microbatch = group
    return f"{stage}{kind}{'' if microbatch is None else microbatch}"


def _all(eighths: Mapping[int, Iterable[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The points of one group, those with least frozen first: sums and medians don't depend on how they came."""
    return [point for eighth in sorted(eighths) for point in eighths[eighth]]


def fit(kind: Kind, stage: int, points: Sequence[tuple[float, float]], earlier: Line | None = None) -> Line:
    """(full, frozen) seconds: the Theil-Sen line, which up to 29 % of outliers don't move. `frozen` is in 0 … full.

    F and I don't depend on what is frozen: both are their median.
    """
    frozen_N, seconds_N = np.asarray(points, dtype=np.float64).T
    if not kind.freezable:
        middle = float(np.median(seconds_N))
        return middle, middle
    left, right = np.triu_indices(len(frozen_N), k=1)
    apart_N = frozen_N[right] - frozen_N[left]
    far = np.abs(apart_N) > _APART
    if not far.any():
        full = median(seconds / max(1e-9, _part(kind, stage, frozen, earlier)) for frozen, seconds in points)
        return full, full * _part(kind, stage, 1.0, earlier)
    slope = min(0.0, float(np.median((seconds_N[right] - seconds_N[left])[far] / apart_N[far])))
    full = max(0.0, float(np.median(seconds_N - slope * frozen_N)))
    return full, max(0.0, full + slope)


def medians(kind: Kind, stage: int, points: Sequence[tuple[float, float]], earlier: Line | None = None) -> Line:
    """(full, frozen) seconds as published: the median with nothing frozen, and that with (almost) everything frozen."""
    full = [seconds for frozen, seconds in points if frozen < 0.5 or not kind.freezable]
    frozen = [seconds for frozen, seconds in points if frozen >= 0.5 and kind.freezable]
    if not full or (kind.freezable and not frozen):
        return fit(kind, stage, points, earlier)
    longest = median(full)
    return longest, min(longest, median(frozen or full))


def _part(kind: Kind, stage: int, frozen: float, earlier: Line | None) -> float:
    """Part of its full time that an action takes with a share frozen, by what is known or usual."""
    if earlier is not None and earlier[0] > 0:
        left = earlier[1] / earlier[0]
    else:
        left = 0.0 if kind is Kind.W or stage == 0 else _FROZEN_PART
    return 1 - frozen * (1 - left)


def merged(ranks: Iterable[Mapping[str, Line]]) -> dict[str, Line]:
    """The lines of all ranks. Where replicas of a stage differ, the slowest counts: the others wait for it."""
    lines: dict[str, Line] = {}
    for rank in ranks:
        for group, (full, frozen) in rank.items():
            before = lines.get(group, (0.0, 0.0))
            lines[group] = (max(before[0], full), max(before[1], frozen))
    return lines


def timings(order: ScheduleOrder, lines: Mapping[str, Line], *, hop_seconds: float) -> Timings:
    """The times of an order: of an action itself, where there are such. Raises KeyError where one was never measured."""
    times = {group: ActionTime(full=full, frozen=frozen) for group, (full, frozen) in lines.items()}
    return Timings(
        provenance="recorded",
        actions={action: times.get(str(action)) or times[f"{action.stage}{action.kind}"] for action in order.actions},
        hop_seconds=(hop_seconds,) * (order.stages - 1),
    )


def fitted_hop(
    order: ScheduleOrder, lines: Mapping[str, Line], ratios: Mapping[Action, float], measured: float | None
) -> float:
    """Seconds from one rank to the next that make the simulated step as long as the measured one; 0 where it is longer.

    So everything that no action's clock sees (messages, launches, Python) is in the prediction, where it belongs.
    """

    def length(hop: float) -> float:
        return simulate(order, timings(order, lines, hop_seconds=hop), ratios).makespan

    if measured is None or order.stages < 2 or length(0.0) >= measured:
        return 0.0
    low, high = 0.0, measured
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if length(middle) < measured else (low, middle)
    return low
