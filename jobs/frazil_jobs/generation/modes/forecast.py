"""Forecasting a quantity from the steps at which it was computed: polynomials through the last few of them.

Used for deep features (vectors), for the difference of the branches, and, for the error that a forecast makes, for its
next derivative (Newton's divided differences). The time axis is the number of the step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import torch

from frazil_jobs.base.exits import FrazilError


def weights(nodes: Sequence[int], at: int) -> list[float]:
    """Lagrange's weights: the polynomial through the values at `nodes` is, at `at`, their sum with these weights."""
    return [
        prod((at - other) / (node - other) for other in nodes if other != node)  # one node: 1
        for node in nodes
    ]


def reach(nodes: Sequence[int], at: int) -> float:
    """The product of the distances from `at` to the nodes: a forecast's error is this times a divided difference."""
    return float(prod(abs(at - node) for node in nodes))


def difference_weights(nodes: Sequence[int]) -> list[float]:
    """The weights of the values at `nodes` in their divided difference, of order len(nodes) - 1."""
    return [1.0 / prod(node - other for other in nodes if other != node) for node in nodes]


def combined(values: Sequence[torch.Tensor], factors: Sequence[float]) -> torch.Tensor:
    """The weighted sum; half precision is summed in single."""
    first = values[0]
    if len(values) == 1 and factors[0] == 1.0:
        return first
    wide = torch.promote_types(first.dtype, torch.float32)
    total = first.to(wide) * factors[0]
    for value, factor in zip(values[1:], factors[1:], strict=True):
        total.add_(value.to(wide), alpha=factor)
    return total.to(first.dtype)


class StaleTensor(FrazilError):
    """A cached tensor isn't of the step that the mode says: a defect of Frazil, never of a job."""


@dataclass(frozen=True)
class Kept:
    """Tensors, and the step that made them."""

    step: int
    tensors: tuple[torch.Tensor, ...]


@dataclass
class History:
    """The last values of one quantity, newest last."""

    length: int
    entries: deque[Kept] = field(default_factory=deque)

    def keep(self, step: int, tensors: tuple[torch.Tensor, ...]) -> None:
        """Take in the tensors of `step`, which must be later than all before."""
        if self.entries and step <= self.entries[-1].step:
            raise ValueError(f"step {step} is not after step {self.entries[-1].step}")
        self.entries.append(Kept(step, tensors))
        while len(self.entries) > self.length:
            self.entries.popleft()

    @property
    def steps(self) -> list[int]:
        """Of what is kept, oldest first."""
        return [entry.step for entry in self.entries]

    def age(self, at: int) -> int:
        """Steps from the newest to `at`."""
        return at - self.entries[-1].step

    def forecast(self, at: int) -> tuple[torch.Tensor, ...]:
        """Each tensor at step `at`, by the polynomial through all that is kept."""
        factors = weights(self.steps, at)
        columns = zip(*(entry.tensors for entry in self.entries), strict=True)
        return tuple(combined(column, factors) for column in columns)
