"""The freezer: one rank's edge of freezing. It has masks drawn, collects times, and has the plan solved on one rank.

How much is frozen is decided in `controller`, which tensors in `selection`; here decisions meet the other ranks.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch.distributed as dist
from torch import nn

from frazil_jobs.api.pipelining import Freezing, Schedule
from frazil_jobs.base.exits import BadConfiguration, FrazilError
from frazil_jobs.training.freezing.clock import Timed
from frazil_jobs.training.freezing.controller import Controller, Phase
from frazil_jobs.training.freezing.costs import StageTensors
from frazil_jobs.training.freezing.exchange import Alone, Exchange, Groups, agree
from frazil_jobs.training.freezing.injected import InjectedTimes
from frazil_jobs.training.freezing.plans import Notes
from frazil_jobs.training.freezing.selection import Selection
from frazil_jobs.training.freezing.timing import Sample, Samples
from frazil_jobs.training.planning.program import FreezingPlan, FreezingSettings, solve
from frazil_jobs.training.planning.schedules import ScheduleOrder, order_of
from frazil_jobs.training.planning.timings import Timings

SPANS_KEPT = 64
"""Newest batches whose length counts."""

Solve = Callable[[ScheduleOrder, Timings, FreezingSettings], FreezingPlan]


class Freezer:
    """Made once a rank, before the engine; handed to it."""

    def __init__(
        self,
        settings: Freezing,
        stages: Mapping[int, nn.Module],
        *,
        schedule: Schedule,
        pipeline: int,
        microbatches: int,
        accumulation: int = 1,
        seed: int,
        warmup_steps: int,
        pipeline_group: dist.ProcessGroup | None,
        data_group: dist.ProcessGroup | None,
        injected: InjectedTimes | None = None,
        replay: Sequence[Mapping[str, Any]] = (),
        mask_levels: int | None = None,
        exchange: Exchange | None = None,
        solver: Solve = solve,
    ) -> None:
        """`stages`: this rank's modules by stage. `warmup_steps` counts where settings.warmupSteps is left out.

        `injected` replaces measured times by given ones, so that a run is deterministic. `replay` is the `plans` of an
        earlier run: the same plans are taken at the same steps, and nothing is measured. `mask_levels` limits the masks of
        a stage to so many nested ones, and the empty one, for compiled stages. `exchange` and `solver` are for tests.
        """
        self._settings = settings
        self._tensors = {stage: StageTensors.of(module) for stage, module in sorted(stages.items())}
        self._order = order_of(schedule, ranks=pipeline, microbatches=microbatches)
        self._accumulation, self._seed = accumulation, seed
        groups = pipeline_group is not None or data_group is not None
        self._exchange: Exchange = exchange or (Groups(pipeline_group, data_group) if groups else Alone())
        self._injected, self._solver = injected, solver
        self._controller = Controller(settings, self._order, warmup_steps=warmup_steps, replay=replay)
        self.selection = Selection(
            settings,
            self._tensors,
            self._order,
            accumulation=accumulation,
            seed=seed,
            levels=mask_levels,
            exchange=self._exchange,
        )
        """What is frozen in the step."""
        self._samples = Samples(by_action=self._controller.by_action)
        self._spans: deque[float] = deque(maxlen=SPANS_KEPT)
        self._unchecked = True

    def begin_step(self, step: int) -> None:
        """Draw the masks of a step. A collective where a metric spans ranks, and in the first step (all must agree)."""
        if self._unchecked:
            told = [str(step), json.dumps(self._controller.state_dict()), json.dumps(self.plans)]
            agree(self._exchange, "The state of freezing", told)
            self._unchecked = False
        ratios = self._controller.ratios(step) if self.plans_ahead else None
        self.selection.draw(step, ratios, probing=self._controller.phase(step) is Phase.MONITORING)

    def end_step(self, step: int, timed: Sequence[Timed]) -> None:
        """Note times, and plan where it is time to: then a collective, at the same steps on every rank."""
        if not self.plans_ahead:
            return
        if self._controller.measures(step):
            self._note(step, timed)
        if not self._controller.compares(step):
            return
        notes = self._exchange.gather(
            Notes(
                lines=self._samples.lines(self._controller.last_lines),
                span=median(self._spans) if self._spans else None,
            )
        )
        self._spans.clear()
        due = self._controller.decide(step, notes)
        if due is not None:
            text = self._solved(due.timings)
            self._controller.adopt(step, due, FreezingPlan.from_json(text))
            agree(self._exchange, "The freezing plan", [text, json.dumps(self._controller.state_dict())])
        if self._controller.forgets:
            self._samples.clear()

    @property
    def plans_ahead(self) -> bool:
        """Whether a plan says how much is frozen, and not a metric alone."""
        return self._settings.method == "Timely"

    @property
    def rescales(self) -> bool:
        """Whether a gradient is divided by the microbatches that computed it, rather than by all."""
        return self._settings.rescale_gradients

    @property
    def order(self) -> ScheduleOrder:
        """What the ranks do."""
        return self._order

    @property
    def plans(self) -> list[dict[str, Any]]:
        """Log of plans made (or replayed) so far, as JSON values: step, reason, plan, timings, measured. For `replay`."""
        return [entry.to_json() for entry in self._controller.plans]

    def phase(self, step: int) -> Phase | None:
        """Of the controller; None where only a metric freezes."""
        return self._controller.phase(step) if self.plans_ahead else None

    def predicted(self, step: int) -> float | None:
        """Seconds of a pipeline batch by the plan in force."""
        return self._controller.predicted(step)

    def state_dict(self) -> dict[str, Any]:
        """State between two steps, of this rank: JSON-like values and (APF only) tensors. Each rank saves its own."""
        return {
            "job": self._job(),
            "controller": self._controller.state_dict(),
            "samples": self._samples.state_dict(),
            "spans": list(self._spans),
            "metric": self.selection.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict` of the same rank. Raises BadConfiguration where the job was another."""
        for name, mine in self._job().items():
            if (theirs := state["job"].get(name)) != mine:
                raise BadConfiguration(
                    f"the checkpoint was made with {name} {theirs!r}, and the job has {mine!r}",
                    field="spec.freezing" if name == "method" else "spec.parallelism",
                    remedy="resume with the settings that the checkpoint was made with, or start a new job",
                )
        self._controller.load_state_dict(state["controller"])
        self._samples.load_state_dict(state["samples"])
        self._spans = deque(state["spans"], maxlen=SPANS_KEPT)
        self.selection.load_state_dict(state["metric"])
        self._unchecked = True

    def _job(self) -> dict[str, Any]:
        return {
            "method": self._settings.method,
            "stages": self._order.stages,
            "microbatches": self._order.microbatches,
            "accumulation": self._accumulation,
            "seed": self._seed,
            "tensors": {str(stage): len(tensors) for stage, tensors in self._tensors.items()},
        }

    def _solved(self, timings: Timings) -> str:
        """The plan's JSON, solved by one rank. An error there is raised on all."""
        found: tuple[str | None, str] = None, ""
        if self._exchange.leads:
            try:
                found = self._solver(self._order, timings, FreezingSettings.of(self._settings)).to_json(), ""
            except Exception as error:
                found = None, f"{type(error).__name__}: {error}"
        text, trouble = self._exchange.broadcast(found)
        if text is None:
            raise FrazilError(
                f"no freezing plan could be made: {trouble}",
                field="spec.freezing",
                remedy="set freezing.method to None to go on without one",
            )
        return str(text)

    def _note(self, step: int, timed: Sequence[Timed]) -> None:
        if self._injected is not None:
            ratios = self._controller.ratios(step)
            self._samples.add(
                Sample(action, share, self._injected.seconds(step, action, share))
                for action in self._order.actions
                if action.stage in self._tensors
                for share in [self.selection.share(action, 0)]
            )
            if self._controller.counts_span(step):
                self._spans.append(self._injected.span(step, self._order, ratios))
            return
        self._samples.add(Sample(one.action, self.selection.share(one.action, one.batch), one.seconds) for one in timed)
        if self._controller.counts_span(step):
            self._spans.extend(spans_of(timed))


def spans_of(timed: Sequence[Timed]) -> list[float]:
    """Seconds from the first start to the last end, of each batch."""
    spans = []
    for batch in sorted({one.batch for one in timed}):
        of_batch = [one for one in timed if one.batch == batch]
        spans.append(max(one.start + one.seconds for one in of_batch) - min(one.start for one in of_batch))
    return spans
