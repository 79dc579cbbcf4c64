"""One denoiser in an approximate mode: whole, without its core, or one stage of it; and what is kept for the next step.

Shared by the ranks and by the simulator. Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from frazil_jobs.generation.modes.forecast import History, Kept, StaleTensor
from frazil_jobs.generation.stages.costs import unit_costs
from frazil_jobs.generation.stages.cut import Boundary, Stages, check_stages, core_of, cut
from frazil_jobs.generation.stages.partial import Part, Tensors, Units
from frazil_jobs.generation.stages.units import anatomy_of

Send = Callable[[Boundary, Kept], None]


@dataclass(frozen=True)
class Cuts:
    """How a denoiser is cut at one size."""

    core: range
    stages: Stages | None
    costs: tuple[float, ...]


@dataclass
class Denoiser:
    """The hooks on one denoiser, and its state within one image. Raises Uncuttable where it can't be cut as asked."""

    module: torch.nn.Module
    order: int
    """Of the forecast of its features."""
    stages: int
    """Into how many stages it is cut; 1: it isn't."""
    units: Units = field(init=False)
    cuts: Cuts | None = field(default=None, init=False)
    _known: dict[Any, Cuts] = field(default_factory=dict, init=False)
    _features: dict[Hashable, History] = field(default_factory=dict, init=False)
    _boundaries: dict[Hashable, dict[Boundary, Kept]] = field(default_factory=dict, init=False)
    _residual: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        anatomy = anatomy_of(self.module)
        if self.stages > 1:
            check_stages(anatomy, self.stages)
        self.units = Units(self.module, anatomy)

    def close(self) -> None:
        """Take the hooks off."""
        self.units.close()

    def forget(self) -> None:
        """Drop what is kept of the image in hand."""
        self.units.forget()
        self._features = {}
        self._boundaries = {}
        self.cuts = None

    @property
    def staleness(self) -> int:
        """`Stages.staleness` before the cut is known: of a chain S - 1 steps, of a nest 2."""
        return 2 if self.units.anatomy.nested else self.stages - 1

    def fit(self, arguments: Mapping[str, Any]) -> Cuts:
        """Choose the cuts for calls of this size. `arguments`: of one branch's evaluation."""
        if self.cuts is None:
            size = tuple((name, value.shape) for name, value in arguments.items() if isinstance(value, torch.Tensor))
            if size not in self._known:
                self._known[size] = self._cut(arguments)
            self.cuts = self._known[size]
        return self.cuts

    def _cut(self, arguments: Mapping[str, Any]) -> Cuts:
        anatomy = self.units.anatomy
        if not anatomy.nested and self.stages == 1:
            return Cuts(core_of(anatomy, ()), None, ())
        costs = unit_costs(self.module, anatomy, arguments)
        stages = cut(anatomy, costs, self.stages) if self.stages > 1 else None
        return Cuts(core_of(anatomy, costs), stages, tuple(costs))

    def whole(self, branch: Hashable, step: int, call: Callable[[], Any]) -> Any:
        """`call()`, a whole evaluation of `branch`; keeps the features of its core, or its boundaries."""
        assert self.cuts is not None
        if self.cuts.stages is None:
            return self._whole_with_features(self.cuts.core, branch, step, call)
        crossed = {boundary.after: boundary for boundary in self.cuts.stages.boundaries}
        kept = self._boundaries[branch] = {}

        def keep(position: int, tensors: Tensors) -> None:
            kept[crossed[position]] = Kept(step, tuple(tensor.contiguous().clone() for tensor in tensors))

        with self.units.running(Part(branch=branch, keep_outputs=frozenset(crossed), on_output=keep)):
            return call()

    def _whole_with_features(self, core: range, branch: Hashable, step: int, call: Callable[[], Any]) -> Any:
        history = self._features.setdefault(branch, History(self.order + 1))
        part = Part(branch=branch, keep_inputs=frozenset({core.start}), keep_outputs=frozenset({core.stop - 1}))

        def keep(_: int, after: Tensors) -> None:
            before = part.inputs[core.start]
            self._residual = not self.units.anatomy.nested and _alike(before, after)
            if self._residual:
                assert before is not None
                history.keep(step, tuple(out - into for out, into in zip(after, before, strict=True)))
            else:
                history.keep(step, tuple(out.clone() for out in after))

        part.on_output = keep
        with self.units.running(part):
            return call()

    def reused(self, branch: Hashable, step: int, call: Callable[[], Any]) -> tuple[Any, int]:
        """`call()` without the core, whose features are forecast; and how old the newest of these are."""
        assert self.cuts is not None
        core, history = self.cuts.core, self._features[branch]
        forecast = history.forecast(step)

        def features(part: Part) -> Tensors:
            before = part.inputs[core.start]
            if not self._residual or before is None:
                return forecast
            return tuple(into + change for into, change in zip(before, forecast, strict=True))

        part = Part(
            branch=branch,
            skipped=frozenset(core),
            supplied={core.stop - 1: features},
            keep_inputs=frozenset({core.start}),
        )
        with self.units.running(part):
            return call(), history.age(step)

    def staged(
        self,
        branch: Hashable,
        stage: int,
        step: int,
        held: Mapping[Boundary, Kept],
        call: Callable[[], Any],
        send: Send,
    ) -> tuple[Any, int]:
        """`call()` for `branch`, of which only `stage` runs, on the boundaries of the step before; and how old these are.

        What the stage makes for others is handed to `send` at once. The answer of every stage but the last has the right
        shape and no meaning.
        """
        assert self.cuts is not None
        assert self.cuts.stages is not None
        stages = self.cuts.stages
        ages = {boundary: step - held[boundary].step for boundary in stages.into(stage)}
        for boundary, age in ages.items():
            if age != 1:
                raise StaleTensor(f"the boundary after unit {boundary.after} is {age} steps old at step {step}")
        leaving = {boundary.after: boundary for boundary in stages.out_of(stage)}

        def leave(position: int, tensors: Tensors) -> None:
            send(leaving[position], Kept(step, tensors))

        supplied: dict[int, Callable[[Part], Tensors]] = {
            boundary.after: _supply(held[boundary].tensors) for boundary in stages.into(stage)
        }
        part = Part(
            branch=branch,
            skipped=frozenset(range(len(self.units.anatomy))) - stages.own(stage),
            supplied=supplied,
            keep_outputs=frozenset(leaving),
            on_output=leave,
        )
        with self.units.running(part):
            return call(), max(ages.values(), default=0)

    def boundaries_of(self, branch: Hashable) -> dict[Boundary, Kept]:
        """Those of the last whole evaluation of `branch`; empty where it wasn't evaluated here."""
        return self._boundaries.get(branch, {})


def _supply(tensors: Tensors) -> Callable[[Part], Tensors]:
    return lambda _: tensors


def _alike(before: Tensors | None, after: Tensors) -> bool:
    """Whether the streams that went in are those that came out."""
    return before is not None and [tensor.shape for tensor in before] == [tensor.shape for tensor in after]
