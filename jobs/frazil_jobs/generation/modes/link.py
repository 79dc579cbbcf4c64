"""Boundaries between the stages of one line, point to point: sent as soon as they are made, awaited a step later.

What a stage needs in step s + 1 is made by its neighbours in step s. Receives are posted at the beginning of step s, into
one of two sets of buffers (the other one is being read), so that a transfer runs beside the rest of both stages' work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from frazil_jobs.generation.modes.forecast import Kept
from frazil_jobs.generation.stages.cut import Boundary, Stages
from frazil_jobs.generation.stages.partial import Tensors


@dataclass(frozen=True, kw_only=True)
class Line:
    """Ranks that are the stages of one branch's evaluation, and this rank's place among them."""

    ranks: tuple[int, ...]
    """Global rank of each stage."""
    stage: int
    up: dist.ProcessGroup
    """For boundaries to later stages."""
    down: dist.ProcessGroup
    """For boundaries to earlier ones. (Two groups: on one, NCCL runs transfers in the order of their calls, and two ranks
    that both wait first would wait for ever.)"""

    @property
    def last(self) -> int:
        """The rank that makes the prediction."""
        return self.ranks[-1]

    def group(self, source: int, target: int) -> dist.ProcessGroup:
        """The group for a transfer between two stages."""
        return self.up if source < target else self.down


@dataclass
class Link:
    """This rank's transfers with its neighbours."""

    line: Line
    _buffers: dict[tuple[int, Boundary], Tensors] = field(default_factory=dict, init=False)
    _arriving: dict[Boundary, tuple[int, Tensors, list[Any]]] = field(default_factory=dict, init=False)
    _leaving: list[tuple[Any, torch.Tensor]] = field(default_factory=list, init=False)

    def expect(self, step: int, stages: Stages, like: Callable[[int], Tensors]) -> None:
        """Post receives for what the neighbours make in `step`."""
        for boundary in stages.into(self.line.stage):
            buffers = self._buffer(step % 2, boundary, like)
            source, group = self.line.ranks[boundary.source], self.line.group(boundary.source, boundary.target)
            works = [dist.irecv(buffer, source, group=group) for buffer in buffers]
            self._arriving[boundary] = (step, buffers, works)

    def send(self, boundary: Boundary, tensors: Tensors) -> None:
        """Begin to send a boundary."""
        target, group = self.line.ranks[boundary.target], self.line.group(boundary.source, boundary.target)
        for tensor in tensors:
            tensor = tensor.contiguous().clone()  # what comes after may work in place
            self._leaving.append((dist.isend(tensor, target, group=group), tensor))

    def arrived(self) -> dict[Boundary, Kept]:
        """Wait for what was expected, and for what was sent."""
        found = {}
        for boundary, (step, buffers, works) in self._arriving.items():
            for work in works:
                work.wait()
            found[boundary] = Kept(step, buffers)
        self._arriving = {}
        for work, _ in self._leaving:
            work.wait()
        self._leaving = []
        return found

    @property
    def busy(self) -> bool:
        """True while something is on its way."""
        return bool(self._arriving or self._leaving)

    def _buffer(self, parity: int, boundary: Boundary, like: Callable[[int], Tensors]) -> Tensors:
        wanted = like(boundary.after)
        known = self._buffers.get((parity, boundary))
        if known is None or [one.shape for one in known] != [one.shape for one in wanted]:
            known = self._buffers[parity, boundary] = wanted
        return known
