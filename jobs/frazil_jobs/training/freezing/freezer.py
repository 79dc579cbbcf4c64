"""The freezer: one rank's edge of freezing. It draws masks, collects times, and has the plan solved on one rank.

What is decided is decided in `controller` (how much) and `masks` and `metrics` (which); here it meets parameters and ranks.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import nn

from frazil_jobs.api.pipelining import Freezing, Schedule
from frazil_jobs.base.exits import BadConfiguration, FrazilError
from frazil_jobs.training.freezing import masks
from frazil_jobs.training.freezing.clock import Timed
from frazil_jobs.training.freezing.controller import Controller, Notes, Phase, median_span
from frazil_jobs.training.freezing.costs import StageTensors
from frazil_jobs.training.freezing.draws import Bools
from frazil_jobs.training.freezing.exchange import Alone, Exchange, Groups, agree
from frazil_jobs.training.freezing.injected import InjectedTimes
from frazil_jobs.training.freezing.metrics import Apf, AutoFreeze, Metric
from frazil_jobs.training.freezing.stage import Frozen
from frazil_jobs.training.freezing.timing import Sample, Samples
from frazil_jobs.training.planning.actions import Action
from frazil_jobs.training.planning.program import FreezingPlan, FreezingSettings, solve
from frazil_jobs.training.planning.schedules import ScheduleOrder, order_of
from frazil_jobs.training.planning.timings import Timings

SPANS_KEPT = 64
"""Newest batches whose length counts."""

Solve = Callable[[ScheduleOrder, Timings, FreezingSettings], FreezingPlan]


@dataclass(frozen=True)
class _Drawn:
    """One stage's masks of one optimizer step."""

    mask: Bools
    """[accumulation · microbatches, tensors], True where frozen."""
    shares: tuple[float, ...]
    """Share of the stage's dW cost that is frozen, by microbatch."""


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
        self._accumulation, self._seed, self._levels = accumulation, seed, mask_levels
        groups = pipeline_group is not None or data_group is not None
        self._exchange: Exchange = exchange or (Groups(pipeline_group, data_group) if groups else Alone())
        self._injected, self._solver = injected, solver
        self._controller = Controller(settings, self._order, warmup_steps=warmup_steps, replay=replay)
        self._metric = self._make_metric()
        self._samples = Samples()
        self._spans: deque[float] = deque(maxlen=SPANS_KEPT)
        self._drawn: dict[int, _Drawn] = {}
        self._unchecked = True

    def begin_step(self, step: int) -> None:
        """Draw the masks of a step. A collective where a metric spans ranks, and in the first step (all must agree)."""
        if self._unchecked:
            agree(self._exchange, "The state of freezing", [str(step), json.dumps(self._controller.state_dict())])
            self._unchecked = False
        if self._metric is not None:
            self._metric.look(step)
        self._drawn = {stage: self._draw(step, stage) for stage in self._tensors}

    def frozen(self, stage: int, batch: int) -> Frozen:
        """The parameters that each microbatch of a stage skips, in accumulated batch `batch` of the step."""
        count = self._order.microbatches
        rows = self._drawn[stage].mask[batch * count : (batch + 1) * count]
        parameters = self._tensors[stage].parameters
        return [[parameters[at] for at in np.flatnonzero(row)] for row in rows]

    def kept(self) -> dict[nn.Parameter, int]:
        """In how many microbatches of the step each parameter was trained."""
        return {
            parameter: int(trained)
            for stage, drawn in self._drawn.items()
            for parameter, trained in zip(self._tensors[stage].parameters, (~drawn.mask).sum(0), strict=True)
        }

    def note_gradients(self, step: int) -> None:
        """After reduction, for the metrics."""
        if self._metric is not None:
            self._metric.note_gradients(step)

    def end_step(self, step: int, timed: Sequence[Timed]) -> None:
        """Note times, and plan where it is time to: then a collective, at the same steps on every rank."""
        if not self.plans_ahead:
            return
        if self._controller.measures(step):
            self._note(step, timed)
        if not self._controller.compares(step):
            return
        notes = self._exchange.gather(
            Notes(lines=self._samples.lines(self._controller.last_lines), span=median_span(self._spans))
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
        """Log of the plans made so far, as JSON values: step, reason, plan, timings, measured. What `replay` takes."""
        return [entry.to_json() for entry in self._controller.log]

    def phase(self, step: int) -> Phase | None:
        """Of the controller; None where only a metric freezes."""
        return self._controller.phase(step) if self.plans_ahead else None

    def predicted(self, step: int) -> float | None:
        """Seconds of a pipeline batch by the plan in force."""
        return self._controller.predicted(step)

    def frozen_shares(self) -> dict[int, float]:
        """Share of each of this rank's stages' dW cost that is frozen in the step."""
        return {stage: float(np.mean(drawn.shares)) for stage, drawn in self._drawn.items()}

    def tensor_shares(self) -> dict[str, float]:
        """Share of the step's microbatches that freeze each tensor of this rank, by "<stage>.<name>"."""
        return {
            f"{stage}.{name}": float(share)
            for stage, drawn in self._drawn.items()
            for name, share in zip(self._tensors[stage].names, drawn.mask.mean(0), strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """State between two steps, of this rank: JSON-like values and (APF only) tensors. Each rank saves its own."""
        return {
            "job": self._job(),
            "controller": self._controller.state_dict(),
            "samples": self._samples.state_dict(),
            "spans": list(self._spans),
            "metric": self._metric.state_dict() if self._metric is not None else {},
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
        if self._metric is not None:
            self._metric.load_state_dict(state["metric"])
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

    def _make_metric(self) -> Metric | None:
        settings = self._settings
        wanted = settings.selection if settings.method == "Timely" else settings.method
        if wanted == "APF":
            return Apf(self._tensors, float(settings.apf_threshold))
        if wanted == "AutoFreeze":
            return AutoFreeze(self._tensors, settings.auto_freeze_percentile, self._exchange)
        return None

    def _draw(self, step: int, stage: int) -> _Drawn:
        tensors, count = self._tensors[stage], self._order.microbatches * self._accumulation
        if not self.plans_ahead:
            settled = self._metric.settled(step, stage) if self._metric is not None else [False] * len(tensors)
            mask: Bools = np.tile(np.asarray(settled, dtype=np.bool_), (count, 1))
        else:
            mask = self._select(step, stage, self._ratios(step, stage))
        return _Drawn(mask=mask, shares=tuple(masks.frozen_cost(mask, tensors.costs).tolist()))

    def _ratios(self, step: int, stage: int) -> list[float]:
        """By microbatch of the step, the accumulated batches one after the other."""
        by_action = self._controller.ratios(step)
        batch = [0.0] * self._order.microbatches
        for action, ratio in by_action.items():
            if action.stage == stage:
                batch[action.microbatch] = ratio
        probes = self._controller.phase(step) is Phase.MONITORING and min(batch) >= 1
        if probes and stage == self._order.stages - 1:
            # published: one tensor of the last stage goes on training while everything else is frozen
            batch = [1 - 1 / len(self._tensors[stage])] * len(batch)
        return batch * self._accumulation

    def _select(self, step: int, stage: int, ratios: Sequence[float]) -> Bools:
        tensors = self._tensors[stage]
        key = (self._seed, step // self._settings.redraw_every, stage)
        if self._levels is not None:
            return masks.front_prefix(tensors.costs, ratios, *key, levels=self._levels)
        match self._settings.selection:
            case "Uniform":
                return masks.uniform(len(tensors), ratios, *key, first_stage=stage == 0)
            case "APF" | "AutoFreeze":
                assert self._metric is not None
                return masks.preferring(self._metric.settled(step, stage), ratios, *key)
            case "CostAware":
                draw = masks.front_prefix if stage == 0 else masks.cost_aware
                return draw(tensors.costs, ratios, *key)

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
                Sample(action.kind, action.stage, share, self._injected.seconds(step, action, share))
                for action in self._order.actions
                if action.stage in self._tensors
                for share in [self._share(action, 0)]
            )
            if self._controller.counts_span(step):
                self._spans.append(self._injected.span(step, self._order, ratios))
            return
        self._samples.add(
            Sample(one.action.kind, one.action.stage, self._share(one.action, one.batch), one.seconds) for one in timed
        )
        if self._controller.counts_span(step):
            self._spans.extend(spans_of(timed))

    def _share(self, action: Action, batch: int) -> float:
        return self._drawn[action.stage].shares[batch * self._order.microbatches + action.microbatch]


def spans_of(timed: Sequence[Timed]) -> list[float]:
    """Seconds from the first start to the last end, of each batch."""
    spans = []
    for batch in sorted({one.batch for one in timed}):
        of_batch = [one for one in timed if one.batch == batch]
        spans.append(max(one.start + one.seconds for one in of_batch) - min(one.start for one in of_batch))
    return spans
