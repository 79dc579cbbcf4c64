"""Which of this rank's parameters are frozen in which microbatch of a step: masks and metrics, met with parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.training.freezing import masks
from frazil_jobs.training.freezing.costs import StageTensors, group_of
from frazil_jobs.training.freezing.draws import Bools
from frazil_jobs.training.freezing.exchange import Exchange
from frazil_jobs.training.freezing.metrics import Apf, AutoFreeze, Metric
from frazil_jobs.training.freezing.stage import Frozen
from frazil_jobs.training.planning.actions import Action
from frazil_jobs.training.planning.schedules import ScheduleOrder


@dataclass(frozen=True)
class Drawn:
    """One stage's masks of one optimizer step."""

    mask: Bools
    """[accumulation · microbatches, tensors], True where frozen."""
    shares: tuple[float, ...]
    """Share of the stage's dW cost that is frozen, by microbatch."""


class Selection:
    """Of one rank. Drawn anew for each step; between two steps only the metric has state."""

    def __init__(
        self,
        settings: Freezing,
        tensors: Mapping[int, StageTensors],
        order: ScheduleOrder,
        *,
        accumulation: int,
        seed: int,
        levels: int | None,
        exchange: Exchange,
    ) -> None:
        self._settings, self._tensors, self._order = settings, tensors, order
        self._accumulation, self._seed, self._levels = accumulation, seed, levels
        self._metric = _metric_of(settings, tensors, exchange)
        self._drawn: dict[int, Drawn] = {}

    def draw(self, step: int, ratios: Mapping[Action, float] | None, *, probing: bool) -> None:
        """Draw a step's masks: to `ratios`, or None to freeze what the metric calls settled. `probing`: ratios of 1 are
        there to be measured (published probe). A collective where a metric spans ranks."""
        if self._metric is not None:
            self._metric.look(step)
        for stage in self._tensors:
            mask = self._settled(step, stage) if ratios is None else self._planned(step, stage, ratios, probing=probing)
            shares = masks.frozen_cost(mask, self._tensors[stage].costs).tolist()
            self._drawn[stage] = Drawn(mask=mask, shares=tuple(shares))

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

    def share(self, action: Action, batch: int) -> float:
        """Share of the stage's dW cost that an action skipped."""
        return self._drawn[action.stage].shares[batch * self._order.microbatches + action.microbatch]

    def stage_shares(self) -> dict[int, float]:
        """Share of each stage's dW cost that is frozen in the step."""
        return {stage: float(np.mean(drawn.shares)) for stage, drawn in self._drawn.items()}

    def tensor_shares(self) -> dict[str, float]:
        """Share of the step's microbatches that freeze each tensor, by "<stage>.<name>"."""
        return {
            f"{stage}.{name}": float(share)
            for stage, drawn in self._drawn.items()
            for name, share in zip(self._tensors[stage].names, drawn.mask.mean(0), strict=True)
        }

    def group_shares(self) -> dict[int, dict[str, float]]:
        """Share of the dW cost of each stage's tensor groups that is frozen in the step."""
        found = {}
        for stage, drawn in self._drawn.items():
            tensors = self._tensors[stage]
            costs, frozen = np.asarray(tensors.costs), drawn.mask.mean(0)
            groups = np.asarray([group_of(name) for name in tensors.names])
            found[stage] = {
                str(group): float(np.average(frozen[groups == group], weights=costs[groups == group]))
                for group in dict.fromkeys(groups.tolist())
            }
        return found

    def note_gradients(self, step: int) -> None:
        """After reduction, for the metric."""
        if self._metric is not None:
            self._metric.note_gradients(step)

    def state_dict(self) -> dict[str, Any]:
        """Of the metric."""
        return self._metric.state_dict() if self._metric is not None else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        if self._metric is not None:
            self._metric.load_state_dict(state)

    def _settled(self, step: int, stage: int) -> Bools:
        """A metric alone freezes a tensor in all microbatches."""
        count = self._order.microbatches * self._accumulation
        nothing = [False] * len(self._tensors[stage])
        settled = self._metric.settled(step, stage) if self._metric is not None else nothing
        return np.tile(np.asarray(settled, dtype=np.bool_), (count, 1))

    def _planned(self, step: int, stage: int, by_action: Mapping[Action, float], *, probing: bool) -> Bools:
        batch = [0.0] * self._order.microbatches
        for action, ratio in by_action.items():
            if action.stage == stage:
                batch[action.microbatch] = ratio
        if probing and min(batch) >= 1 and stage == self._order.stages - 1:
            # published: one tensor of the last stage goes on training while everything else is frozen
            batch = [1 - 1 / max(1, len(self._tensors[stage]))] * len(batch)
        return self._select(step, stage, batch * self._accumulation)

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


def _metric_of(settings: Freezing, tensors: Mapping[int, StageTensors], exchange: Exchange) -> Metric | None:
    wanted = settings.selection if settings.method == "Timely" else settings.method
    if wanted == "APF":
        return Apf(tensors, float(settings.apf_threshold))
    if wanted == "AutoFreeze":
        return AutoFreeze(tensors, settings.auto_freeze_percentile, exchange)
    return None
