"""When freezing is measured, planned, ramped up and planned anew: a state machine over optimizer steps, without a clock.

    Warmup       nothing is frozen or measured
    Monitoring   actions are timed; a few microbatches are frozen so that the saving is seen (or all, the published probe)
    Ramp         ratios go from the last plan's (at first 0) to the new plan's
    Stable       the plan holds; the measured step is compared with the predicted one

The phase is a function of the step and of the log of plans. What every rank decides here it decides from the same gathered
notes, so that all decide alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.freezing.plans import Due, Notes, Planned, Reason
from frazil_jobs.training.freezing.timing import Line, fitted_hop, merged, timings
from frazil_jobs.training.planning.actions import Action
from frazil_jobs.training.planning.program import FreezingPlan, FreezingSettings, plan_of
from frazil_jobs.training.planning.schedules import ScheduleOrder

WATCH_EVERY = 10
"""Optimizer steps between two looks at the drift."""
PATIENCE = 3
"""Looks in a row that must see drift to the same side before anything is planned: one slow minute is no new machine."""
LEAST_GAIN = 0.01
"""Part by which a new plan must shorten the step against keeping the ratios, on the same new times."""


class Phase(StrEnum):
    """Of a step."""

    WARMUP = "Warmup"
    MONITORING = "Monitoring"
    RAMP = "Ramp"
    STABLE = "Stable"


class Controller:
    """Of one job. All ranks hold the same."""

    def __init__(
        self,
        settings: Freezing,
        order: ScheduleOrder,
        *,
        warmup_steps: int,
        replay: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """With `replay`, plans are taken from the log of an earlier run, at its steps, and none is made."""
        self._settings = settings
        self._order = order
        self._max_ratio = float(settings.max_freeze_ratio)
        self._drift = float(settings.replan_drift_percent) / 100
        self._begins = settings.warmup_steps if settings.warmup_steps is not None else warmup_steps
        self._freezable = [action for action in order.actions if action.kind.freezable]
        self._replayed = self._log_of(
            replay, "the plans to replay are", "replay the plans of a run with this parallelism"
        )
        self.log: list[Planned] = []
        self._drifted = 0
        """Looks in a row that saw drift, negative where steps were faster than predicted."""

    @property
    def plans(self) -> Sequence[Planned]:
        """Those made, or those replayed."""
        return self._replayed or self.log

    @property
    def monitors_until(self) -> int:
        """First step after monitoring."""
        halves = 2 if self._settings.probe == "AllFrozen" else 1
        return self._begins + halves * self._settings.monitor_steps

    def phase(self, step: int) -> Phase:
        """The phase of a step."""
        if (planned := self._in_force(step)) is not None:
            return Phase.RAMP if step - planned.step < self._settings.ramp_steps else Phase.STABLE
        return Phase.WARMUP if step < self._begins else Phase.MONITORING

    def ratios(self, step: int) -> Mapping[Action, float]:
        """Freeze ratio of every freezable action in a step."""
        planned = self._in_force(step)
        if planned is None:
            return self._probing(step) if self.phase(step) is Phase.MONITORING else dict.fromkeys(self._freezable, 0.0)
        ramp = self._settings.ramp_steps
        share = min(1.0, (step - planned.step + 1) / ramp) if ramp else 1.0
        earlier = self._in_force(planned.step - 1)
        return {
            action: share * planned.plan.ratios.get(action, 0.0)
            + (1 - share) * (earlier.plan.ratios.get(action, 0.0) if earlier else 0.0)
            for action in self._freezable
        }

    def measures(self, step: int) -> bool:
        """Whether the times of this step count: not in the warm-up, nor in a replay."""
        return not self._replayed and self.phase(step) is not Phase.WARMUP

    def counts_span(self, step: int) -> bool:
        """Whether the length of this step's batches says something of the step with the ratios in force."""
        if not self.measures(step):
            return False
        if self.phase(step) is Phase.MONITORING:
            return self._settings.probe != "AllFrozen" or step < self._begins + self._settings.monitor_steps
        return self.phase(step) is Phase.STABLE

    def compares(self, step: int) -> bool:
        """Whether ranks gather their notes after this step. A function of the step and the log: the same on all."""
        if not self.measures(step):
            return False
        planned = self._in_force(step)
        if planned is None:
            return step + 1 >= self.monitors_until
        since = step + 1 - planned.step - self._settings.ramp_steps
        return self._drift > 0 and since > 0 and since % WATCH_EVERY == 0

    def decide(self, step: int, notes: Sequence[Notes]) -> Due | None:
        """What the gathered notes call for after this step: a plan, or nothing."""
        spans = [note.span for note in notes if note.span is not None]
        measured = max(spans) if spans else None
        planned = self._in_force(step)
        if planned is not None and not self._has_drifted(planned, measured):
            return None
        reason = Reason.MONITORED if planned is None else Reason.DRIFTED
        lines = merged(note.lines for note in notes)
        ratios = self.ratios(step) if planned is not None else self._mean_probing()
        hop = 0.0 if self.by_action else fitted_hop(self._order, lines, ratios, measured)
        return Due(timings=timings(self._order, lines, hop_seconds=hop), reason=reason, measured=measured)

    def adopt(self, step: int, due: Due, plan: FreezingPlan) -> Planned:
        """Take a plan, made after `step`: it holds from the next step on. With hysteresis, see LEAST_GAIN."""
        planned, reason = self._in_force(step), due.reason
        if planned is not None:
            kept = plan_of(self._order, due.timings, planned.plan.ratios)
            if kept.makespan < (1 + LEAST_GAIN) * plan.makespan:
                plan, reason = kept, Reason.KEPT
        self.log.append(Planned(step + 1, reason, plan, due.timings, due.measured))
        self._drifted = 0
        return self.log[-1]

    @property
    def forgets(self) -> bool:
        """Whether, after a look, times measured so far are of no use: either a plan was made, or the step was as long as
        predicted, or drift has only just begun, and they may be from before it."""
        return abs(self._drifted) < PATIENCE - 1

    @property
    def by_action(self) -> bool:
        """Whether the one plan is made as published: from each action's own median times, and without communication."""
        objective = FreezingSettings.of(self._settings).objective
        return objective == "Published" and self._settings.probe == "AllFrozen" and self._drift == 0

    @property
    def last_lines(self) -> Mapping[str, Line] | None:
        """Times that the newest plan was made from, by "<stage><kind>"."""
        if not self.log:
            return None
        times = self.log[-1].timings.actions
        return {f"{action.stage}{action.kind}": (time.full, time.frozen) for action, time in times.items()}

    def predicted(self, step: int) -> float | None:
        """Seconds of a pipeline batch by the plan in force, None before there is one."""
        planned = self._in_force(step)
        return planned.plan.makespan if planned else None

    def state_dict(self) -> dict[str, Any]:
        """Values of JSON, the same on every rank."""
        return {"log": [entry.to_json() for entry in self.log], "drifted": self._drifted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises BadConfiguration where the plans are of another schedule."""
        self.log = self._log_of(
            state["log"],
            "the checkpoint's freezing plan is",
            "resume with the parallelism that the checkpoint was made with",
        )
        self._drifted = int(state["drifted"])

    def _log_of(self, entries: Sequence[Mapping[str, Any]], which: str, remedy: str) -> list[Planned]:
        log = [Planned.from_json(entry) for entry in entries]
        if any(set(entry.plan.ratios) != set(self._freezable) for entry in log):
            raise BadConfiguration(
                f"{which} of another schedule, pipeline or number of microbatches",
                field="spec.parallelism",
                remedy=remedy,
            )
        return log

    def _in_force(self, step: int) -> Planned | None:
        """The newest plan that holds for a step."""
        entries = [entry for entry in self.plans if entry.step <= step]
        return entries[-1] if entries else None

    def _probing(self, step: int) -> Mapping[Action, float]:
        """What is frozen so that its saving is seen.

        AllFrozen (published): nothing in the first half, everything in the second. Regression: one microbatch of each
        stage in a step, wholly or by half, each in turn, and in so few steps that maxFreezeRatio holds.
        """
        if self._settings.probe == "AllFrozen":
            frozen = step >= self._begins + self._settings.monitor_steps
            return dict.fromkeys(self._freezable, 1.0 if frozen else 0.0)
        count, every = self._order.microbatches, self._every
        if every is None or step % every:
            return dict.fromkeys(self._freezable, 0.0)
        turn = step // every
        share = 1.0 if turn % 2 == 0 else 0.5
        return {
            action: share if action.microbatch == (turn // 2 + action.stage) % count else 0.0
            for action in self._freezable
        }

    @property
    def _every(self) -> int | None:
        """Steps between two in which monitoring freezes a microbatch."""
        if self._max_ratio <= 0:
            return None
        return max(1, math.ceil(1 / (self._order.microbatches * self._max_ratio)))

    def _mean_probing(self) -> Mapping[Action, float]:
        """Mean ratios of the monitored steps whose span counts."""
        if self._settings.probe == "AllFrozen" or self._every is None:
            return {}
        return dict.fromkeys(self._freezable, 0.75 / self._order.microbatches / self._every)

    def _has_drifted(self, planned: Planned, measured: float | None) -> bool:
        if measured is None:
            return False
        drift = measured / planned.plan.makespan - 1
        side = 0 if abs(drift) <= self._drift else int(math.copysign(1, drift))
        goes_on = side * self._drifted > 0
        self._drifted = self._drifted + side if goes_on else side
        return abs(self._drifted) >= PATIENCE
