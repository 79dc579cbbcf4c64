"""Which tensors have settled: the metrics of APF and AutoFreeze, per tensor, looked at every ten optimizer steps.

Both can freeze by themselves (in all microbatches, whatever the schedule) or only say which tensors a plan should freeze
first. As TimelyFreeze's authors implemented them; AutoFreeze over all ranks' layers, so that what it freezes is one prefix
of the whole model, not one of each rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from frazil_jobs.training.freezing.costs import StageTensors
from frazil_jobs.training.freezing.exchange import Exchange

LOOK_EVERY = 10
"""Optimizer steps between two looks, and the unit of APF's freezing periods (published)."""
_DECAY = 0.99
_NEVER = 1e-10
"""Least mean size of a change."""

Stages = Mapping[int, StageTensors]


class Metric(Protocol):
    """Of this rank's stages."""

    def note_gradients(self, step: int) -> None:
        """After reduction, before the optimizer's step."""

    def look(self, step: int) -> None:
        """Before the forward of a step. Collective where the metric spans ranks."""

    def settled(self, step: int, stage: int) -> list[bool]:
        """Tensor by tensor, whether the metric wants it frozen."""

    def state_dict(self) -> dict[str, Any]:
        """Values and tensors."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""


class Apf:
    """Adaptive parameter freezing (Chen et al., ICDCS 2021), by whole tensors.

    A tensor whose running mean change is small against its running mean size of change oscillates: it has settled. Each
    look that finds it so lengthens its freezing by one period, each other halves it. Keeps a copy of all weights.
    """

    def __init__(self, stages: Stages, threshold: float) -> None:
        self._stages = stages
        self._threshold = threshold
        self._tensors = {
            f"{stage}.{name}": parameter
            for stage, tensors in stages.items()
            for name, parameter in zip(tensors.names, tensors.parameters, strict=True)
        }
        self._last: dict[str, torch.Tensor] = {}
        self._means: dict[str, tuple[float, float]] = {}
        self._periods: dict[str, int] = {}
        self._until: dict[str, int] = {}
        self._learned: set[str] = set()

    def note_gradients(self, step: int) -> None:
        """A tensor without any gradient since the last look isn't judged by its stillness."""
        self._learned |= {name for name, parameter in self._tensors.items() if parameter.grad is not None}

    @torch.no_grad()
    def look(self, step: int) -> None:
        """Compare weights with those of the last look."""
        if step % LOOK_EVERY:
            return
        for name, parameter in self._tensors.items():
            now = parameter.detach().to(torch.float32)
            if name in self._last:
                self._judge(step, name, (now - self._last[name]).to(torch.float64))
            self._last[name] = now.clone()
        self._learned.clear()

    def _judge(self, step: int, name: str, change: torch.Tensor) -> None:
        settled = False
        if name in self._learned:
            moved, size = self._means.get(name, (0.0, 0.0))
            moved = _DECAY * moved + (1 - _DECAY) * float(change.mean())
            size = _DECAY * size + (1 - _DECAY) * float(change.abs().mean())
            self._means[name] = moved, size
            # what has not moved at all has not begun to learn (behind the closed gates of an adaLN-zero block, say)
            settled = size > 0 and abs(moved) / max(size, _NEVER) <= self._threshold
        period = self._periods.get(name, 0)
        period = period + LOOK_EVERY if settled else period // 2
        self._periods[name] = period if period >= LOOK_EVERY else 0
        self._until[name] = step + self._periods[name]

    def settled(self, step: int, stage: int) -> list[bool]:
        """Those within their period."""
        return [step < self._until.get(f"{stage}.{name}", 0) for name in self._stages[stage].names]

    def state_dict(self) -> dict[str, Any]:
        """Means, periods, and the weights of the last look."""
        return {
            "last": {name: tensor.clone() for name, tensor in self._last.items()},
            "means": {name: list(means) for name, means in self._means.items()},
            "periods": dict(self._periods),
            "until": dict(self._until),
            "learned": sorted(self._learned),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._last = {
            name: tensor.to(self._tensors[name].device, torch.float32).clone() for name, tensor in state["last"].items()
        }
        self._means = {name: (means[0], means[1]) for name, means in state["means"].items()}
        self._periods, self._until = dict(state["periods"]), dict(state["until"])
        self._learned = set(state["learned"])


class AutoFreeze:
    """AutoFreeze (Liu et al., arXiv 2102.01386): a growing prefix of layers whose gradient norm changes little.

    At each look, layers from the first trained one on are compared: the prefix grows up to the first that changes as much
    as the given percentile of them. It never shrinks.
    """

    def __init__(self, stages: Stages, percentile: int, exchange: Exchange) -> None:
        self._stages = stages
        self._percentile = percentile
        self._exchange = exchange
        self._layers = {stage: list(dict.fromkeys(map(layer_of, tensors.names))) for stage, tensors in stages.items()}
        self._norms: dict[str, float] = {}
        self._earlier: dict[str, float] = {}
        self._start: tuple[int, int] = (0, 0)
        """Stage and number of the first layer that is trained, counted within its stage."""

    @torch.no_grad()
    def note_gradients(self, step: int) -> None:
        """Keep norms of the step before a look. A tensor without gradient keeps the norm that it had."""
        if (step + 1) % LOOK_EVERY:
            return
        for stage, tensors in self._stages.items():
            for name, parameter in zip(tensors.names, tensors.parameters, strict=True):
                if parameter.grad is not None:
                    self._norms[f"{stage}.{name}"] = float(parameter.grad.abs().sum(dtype=torch.float64))

    def look(self, step: int) -> None:
        """Collective: every rank sees the scores of all layers, and finds the same start."""
        if step % LOOK_EVERY or step == 0:
            return
        scores: dict[tuple[int, int], float] = {}
        for part in self._exchange.gather(self._scores()):
            scores |= part
        self._grow(scores)
        self._earlier = dict(self._norms)

    def _scores(self) -> dict[tuple[int, int], float]:
        """Relative change of the gradient's L1 norm, summed over a layer's tensors, by (stage, layer).

        Infinite where a tensor had no gradient yet, or one of 0: it has not begun to learn, so it has not settled.
        """
        scores: dict[tuple[int, int], float] = {}
        for stage, tensors in self._stages.items():
            for name in tensors.names:
                layer = stage, self._layers[stage].index(layer_of(name))
                before, now = self._earlier.get(f"{stage}.{name}"), self._norms.get(f"{stage}.{name}")
                change = abs(before - now) / before if before and now is not None else math.inf
                scores[layer] = scores.get(layer, 0.0) + change
        return scores

    def _grow(self, scores: Mapping[tuple[int, int], float]) -> None:
        ahead = sorted(layer for layer in scores if layer >= self._start)
        known = [scores[layer] for layer in ahead if scores[layer] < math.inf]
        if known:
            threshold = float(np.percentile(known, self._percentile))
            self._start = next(layer for layer in ahead if scores[layer] >= threshold)

    def settled(self, step: int, stage: int) -> list[bool]:
        """Those before the first trained layer of the whole model."""
        layers = self._layers[stage]
        return [(stage, layers.index(layer_of(name))) < self._start for name in self._stages[stage].names]

    def state_dict(self) -> dict[str, Any]:
        """Norms and the start."""
        return {"norms": dict(self._norms), "earlier": dict(self._earlier), "start": list(self._start)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._norms, self._earlier = dict(state["norms"]), dict(state["earlier"])
        self._start = int(state["start"][0]), int(state["start"][1])


def layer_of(name: str) -> str:
    """The layer that a tensor belongs to: its name up to the first number ("blocks.3.attn.q.weight": "blocks.3"), else up to
    the first dot."""
    numbered = re.match(r"(?:[^.]+\.)*?\d+(?=\.|$)", name)
    return numbered[0] if numbered else name.split(".", 1)[0]
