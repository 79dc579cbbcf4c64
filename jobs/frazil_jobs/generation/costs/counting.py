"""Multiply-adds (MACs) of one call of a module, attention included, and what each of its parts returns.

The call is made on meta tensors, which have shapes and no memory, so that SDXL at 2560² takes seconds and no weights.
Counted are matrix products, convolutions and attention, as everybody counts them; norms, activations and sums are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One call of one module on the way."""

    name: str
    module: torch.nn.Module
    inputs: tuple[torch.Size, ...]
    """Shapes of its positional tensors."""
    elements: int
    """Numbers in all tensors that it returns."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One call, counted. Names are those of `named_modules`; "" is the whole."""

    inside: Mapping[str, int]
    """MACs of each module with all below it."""
    layers: tuple[Layer, ...]
    """Every module's call, in the order in which they returned."""

    @property
    def macs(self) -> int:
        """MACs of the whole call."""
        return self.inside[""]

    def macs_of(self, names: Iterable[str]) -> int:
        """MACs of several modules, none of which is inside of another."""
        return sum(self.inside.get(name, 0) for name in names)

    def returned(self, names: Iterable[str]) -> int:
        """Numbers in all tensors that these modules return: pictures, text and skips alike."""
        wanted = set(names)
        return sum(layer.elements for layer in self.layers if layer.name in wanted)


def count(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Counted:
    """Count the call `module(*args, **kwargs)`, all of it on the meta device. Its weights are not looked at."""
    layers: list[Layer] = []
    with _noting(module, layers), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*args, **kwargs)
    prefix = type(module).__name__
    inside = {
        name.removeprefix(prefix).removeprefix("."): sum(counts.values()) // 2
        for name, counts in counter.get_flop_counts().items()
        if name == prefix or name.startswith(f"{prefix}.")
    }
    return Counted(inside={"": counter.get_total_flops() // 2, **inside}, layers=tuple(layers))


@contextmanager
def _noting(module: torch.nn.Module, layers: list[Layer]) -> Iterator[None]:
    def noting(name: str) -> Any:
        def note(part: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            shapes = tuple(value.shape for value in inputs if isinstance(value, torch.Tensor))
            tensors = [leaf for leaf in tree_leaves(_plain(output)) if isinstance(leaf, torch.Tensor)]
            elements = sum(tensor.numel() for tensor in tensors)
            layers.append(Layer(name=name, module=part, inputs=shapes, elements=elements))

        return note

    handles = [part.register_forward_hook(noting(name)) for name, part in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _plain(output: Any) -> Any:
    """`ModelOutput`s as what they hold."""
    return list(output.values()) if isinstance(output, Mapping) else output
