"""From runs to rows: the time that each method takes to a validation loss, and what it is over that of no freezing.

Two times are given. Measured: the seconds of a run's own steps, as they were. Counted: its steps, each at the median of
the steps of its phase (warm-up, monitoring, ramp, stable) in that run, so that a slow minute of the machine doesn't count.
Evaluations are in neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from statistics import fmean, median
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: a job, a method, a seed."""

    job: str
    task: str
    schedule: str
    stages: tuple[int, ...]
    """Blocks of each."""
    method: str
    seed: int
    seconds: tuple[float, ...]
    """Of each step."""
    phases: tuple[str, ...]
    """Of freezing, at each step."""
    frozen: tuple[float, ...]
    """Mean freeze ratio of each step."""
    losses: tuple[tuple[int, float], ...]
    """Steps that were done, and the validation loss then."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """What `document` gave."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in document.items()
        }
        fields["losses"] = tuple((int(step), float(loss)) for step, loss in document["losses"])
        return cls(**fields)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @property
    def counted(self) -> tuple[float, ...]:
        """Each step at the median of its phase."""
        by_phase: dict[str, list[float]] = {}
        for phase, seconds in zip(self.phases, self.seconds, strict=True):
            by_phase.setdefault(phase, []).append(seconds)
        medians = {phase: median(seconds) for phase, seconds in by_phase.items()}
        return tuple(medians[phase] for phase in self.phases)

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Measured seconds of the steps before each evaluation, and its validation loss."""
        ends = list(accumulate(self.seconds))
        return [(ends[step - 1], loss) for step, loss in self.losses]

    @property
    def stable_step(self) -> float:
        """Median seconds of a step in the last phase."""
        return median(
            seconds for phase, seconds in zip(self.phases, self.seconds, strict=True) if phase == self.phases[-1]
        )

    def loss_after(self, steps: float) -> float:
        """The validation loss that was reached within so many steps."""
        return min((loss for step, loss in self.losses if step <= steps), default=math.inf)

    def steps_to(self, target: float) -> float:
        """Steps until the validation loss is `target`, on the line between two evaluations; inf if it never is."""
        before: tuple[float, float] | None = None
        for step, loss in self.losses:
            if loss <= target:
                if before is None or before[1] <= loss:
                    return step
                return before[0] + (step - before[0]) * (before[1] - target) / (before[1] - loss)
            before = step, loss
        return math.inf

    def time_of(self, steps: float, seconds: Sequence[float]) -> float:
        """Seconds of the first `steps` steps, the last one in part; inf for inf."""
        if math.isinf(steps):
            return math.inf
        whole = math.floor(steps)
        return sum(seconds[:whole]) + (steps - whole) * (seconds[whole] if whole < len(seconds) else 0.0)


PART = 0.75
"""Of its steps, within which every run without freezing reaches the target; so others have a third more to reach it."""


def target_of(runs: Iterable[Run]) -> float:
    """The validation loss that the runs without freezing have all reached after PART of their steps."""
    return max(run.loss_after(PART * len(run.seconds)) for run in runs if run.method == "none")


def rows_of(runs: Sequence[Run], target: float | None = None) -> list[dict[str, Any]]:
    """A row a job and method, in the order of the runs. `target` of every job; left out: `target_of` each.

    Numbers that there aren't (a target that wasn't reached) are None.
    """
    rows = []
    for job in dict.fromkeys(run.job for run in runs):
        of_job = [run for run in runs if run.job == job]
        wanted = target_of(of_job) if target is None else target
        baseline = {run.seed: run for run in of_job if run.method == "none"}
        rows += [
            _row([run for run in of_job if run.method == method], baseline, wanted)
            for method in dict.fromkeys(run.method for run in of_job)
        ]
    return rows


def _row(runs: Sequence[Run], baseline: Mapping[int, Run], target: float) -> dict[str, Any]:
    first = runs[0]
    steps = [run.steps_to(target) for run in runs]
    measured = [run.time_of(to, run.seconds) for run, to in zip(runs, steps, strict=True)]
    counted = [run.time_of(to, run.counted) for run, to in zip(runs, steps, strict=True)]

    def over(figure: Callable[[Run], float]) -> list[float]:
        """That of no freezing with the same seed, over the run's."""
        return [_ratio(figure(baseline[run.seed]), figure(run)) for run in runs]

    def to_target(run: Run) -> float:
        return run.steps_to(target)

    speedups = over(lambda run: run.time_of(to_target(run), run.seconds))
    return {
        "job": first.job,
        "task": first.task,
        "method": first.method,
        "schedule": first.schedule,
        "stages": list(first.stages),
        "seeds": len(runs),
        "steps": len(first.seconds),
        "target_loss": target,
        "reached": sum(math.isfinite(one) for one in steps),
        "steps_to_target": _middle(steps),
        "seconds_to_target": _middle(measured),
        "spread": [_number(min(measured)), _number(max(measured))],
        "counted_seconds_to_target": _middle(counted),
        "counted_spread": [_number(min(counted)), _number(max(counted))],
        "speedup": _middle(speedups),
        "speedup_spread": [min(speedups), max(speedups)],
        "counted_speedup": _middle(over(lambda run: run.time_of(to_target(run), run.counted))),
        "step_seconds": median(run.stable_step for run in runs),
        "step_speedup": median(over(lambda run: run.stable_step)),
        "step_speedup_to_pay": _middle([_inverse(one) for one in over(to_target)]),
        "mean_freeze_ratio": fmean(fmean(run.frozen) for run in runs),
        "final_loss": median(run.losses[-1][1] for run in runs),
    }


def _ratio(over: float, under: float) -> float:
    """0 where `under` was never reached."""
    return 0.0 if math.isinf(under) else over / under


def _inverse(ratio: float) -> float:
    return 1 / ratio if ratio else math.inf


def _middle(values: Sequence[float]) -> float | None:
    return _number(median(values))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def median_curve(runs: Sequence[Run]) -> list[tuple[float, float]]:
    """The medians of the curves of one method's runs, evaluation by evaluation."""
    return [
        (median(seconds for seconds, _ in points), median(loss for _, loss in points))
        for points in zip(*(run.curve for run in runs), strict=True)
    ]
