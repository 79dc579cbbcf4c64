"""Running only some units of a denoiser: hooks on the units, and for each evaluation a `Part` that says which.

A unit that is left out returns zeros of the shapes that it returned when it last ran. What comes out of zeros is used by
nobody: whoever leaves units out supplies what the units behind them need.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.hooks import ForwardHook, take_off
from frazil_jobs.generation.stages.units import Anatomy, streams_into

HOOK: Final = "frazil_unit"

Tensors = tuple[torch.Tensor, ...]


@dataclass(kw_only=True)
class Part:
    """One evaluation of a denoiser, or of some of its units."""

    branch: Hashable = None
    """Whose evaluation it is: texts, and so shapes, can differ between branches."""
    skipped: frozenset[int] = frozenset()
    """Units that are left out."""
    supplied: Mapping[int, Callable[[Part], Tensors]] = field(default_factory=dict)
    """Units that are left out, and what gives their output instead."""
    keep_inputs: frozenset[int] = frozenset()
    keep_outputs: frozenset[int] = frozenset()
    on_output: Callable[[int, Tensors], None] | None = None
    """Called as soon as an output that is kept is there."""
    inputs: dict[int, Tensors | None] = field(default_factory=dict)
    """Of the units whose inputs are kept, in the order of their outputs; None where that order isn't known."""
    outputs: dict[int, Tensors] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    """The units as they were called."""


@dataclass(frozen=True)
class _Form:
    """What a unit returns: its structure, and its tensors without their values."""

    spec: TreeSpec
    leaves: tuple[Any, ...]
    """Shapes, dtypes and devices as tensors of no memory; other values as they are."""

    def zeros(self) -> Any:
        return tree_unflatten(self.leaves, self.spec)

    def filled(self, tensors: Tensors) -> Any:
        remaining = iter(tensors)
        leaves = [next(remaining) if isinstance(leaf, torch.Tensor) else leaf for leaf in self.leaves]
        return tree_unflatten(leaves, self.spec)


class Units:
    """The hooks on the units of one denoiser."""

    def __init__(self, module: torch.nn.Module, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        self._module = module
        self._part: Part | None = None
        self._forms: dict[tuple[Hashable, int], _Form]
        self._last_forms: dict[int, _Form]
        self.forget()
        self._checked = False
        for position, unit in enumerate(anatomy.units):
            _UnitHook(self, position).put_on(unit.module, HOOK)

    def close(self) -> None:
        """Take the hooks off."""
        for unit in self.anatomy.units:
            take_off(unit.module, HOOK)

    def forget(self) -> None:
        """Drop the forms of what units returned: the next image may have another size."""
        self._forms, self._last_forms = {}, {}

    @contextmanager
    def running(self, part: Part) -> Iterator[Part]:
        """Evaluations inside of the context run `part`; outside they run whole, as if there were no hooks."""
        self._part = part
        try:
            yield part
        finally:
            self._part = None
        if not part.skipped and not part.supplied and not self._checked:
            self._check_order(part.order)

    def like(self, position: int, branch: Hashable) -> Tensors:
        """Tensors of no memory, with the shapes that this unit last returned for `branch`, or else for any."""
        return tuple(leaf for leaf in self._form(position, branch).leaves if isinstance(leaf, torch.Tensor))

    def _form(self, position: int, branch: Hashable) -> _Form:
        return self._forms.get((branch, position)) or self._last_forms[position]

    def _check_order(self, order: list[int]) -> None:
        if order != list(range(len(self.anatomy))):
            raise BadConfiguration(
                f"{type(self._module).__name__} runs its blocks in an order of its own, so it can't be cut",
                field="spec.parallelism.mode",
                remedy="set it to Exact",
            )
        self._checked = True

    def call(self, position: int, module: torch.nn.Module, inner: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """One call of a unit, as the part in hand wants it."""
        part = self._part
        if part is None:
            return inner(*args, **kwargs)
        part.order.append(position)
        if position in part.keep_inputs:
            part.inputs[position] = streams_into(module, args, kwargs)
        if position in part.supplied:
            return self._form(position, part.branch).filled(part.supplied[position](part))
        if position in part.skipped:
            return self._form(position, part.branch).zeros()
        output = inner(*args, **kwargs)
        leaves, spec = tree_flatten(output)
        form = _Form(spec, tuple(_valueless(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves))
        self._forms[part.branch, position] = self._last_forms[position] = form
        if position in part.keep_outputs:
            tensors = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
            part.outputs[position] = tensors
            if part.on_output is not None:
                part.on_output(position, tensors)
        return output


def _valueless(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same shape, type and device that holds one number."""
    return tensor.new_zeros(()).expand(tensor.shape)


class _UnitHook(ForwardHook):
    """Sends each call of one unit to its denoiser's `Units`."""

    def __init__(self, units: Units, position: int) -> None:
        super().__init__()
        self._units = units
        self._position = position

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What the unit returns in the part in hand."""
        return self._units.call(self._position, module, self.inner, args, kwargs)
