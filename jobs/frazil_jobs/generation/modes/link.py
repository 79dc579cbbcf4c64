"""Boundaries between the stages of one line, point to point: sent as soon as they are made, awaited a step later.

What a stage needs in step s + 1 is made by its neighbours in step s. Receives are posted at the beginning of step s, into
one of two sets of buffers (the other one is being read), so that a transfer runs beside the rest of both stages' work.

Each message ends with a tag, the step that made it, written by who made it. The tags are kept where they arrive and read
once a window: to read them at once, the CPU would have to wait for the GPU in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.distributed as dist

from frazil_jobs.generation.modes.forecast import Kept, StaleTensor
from frazil_jobs.generation.stages.cut import Boundary, Stages
from frazil_jobs.generation.stages.partial import Tensors

TAGS: Final = 256
"""Values of a tag: one byte, repeated, so that an element of any type has room for it."""


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


@dataclass(frozen=True)
class Message:
    """A tensor on its way, and behind it one element of its type for the tag."""

    whole: torch.Tensor
    shape: torch.Size

    @classmethod
    def like(cls, tensor: torch.Tensor) -> Message:
        """One without content."""
        return cls(tensor.new_empty(tensor.numel() + 1), tensor.shape)

    @classmethod
    def of(cls, tensor: torch.Tensor, step: int) -> Message:
        """A copy of `tensor`, made in `step`."""
        message = cls.like(tensor)
        message.tensor.copy_(tensor)
        message.tag.fill_(step % TAGS)
        return message

    @property
    def tensor(self) -> torch.Tensor:
        """The content."""
        return self.whole[:-1].view(self.shape)

    @property
    def tag(self) -> torch.Tensor:
        """The bytes of the tag, each the step that made the tensor, modulo TAGS."""
        return self.whole[-1:].view(torch.uint8)


@dataclass
class Link:
    """This rank's transfers with its neighbours."""

    line: Line
    _buffers: dict[tuple[int, Boundary], list[Message]] = field(default_factory=dict, init=False)
    _arriving: dict[Boundary, tuple[int, list[Message], list[Any]]] = field(default_factory=dict, init=False)
    _leaving: list[tuple[Any, Message]] = field(default_factory=list, init=False)
    _tags: list[tuple[int, torch.Tensor]] = field(default_factory=list, init=False)
    """Of what has arrived, with the steps that it should be of."""

    def expect(self, step: int, stages: Stages, like: Callable[[int], Tensors]) -> None:
        """Post receives for what the neighbours make in `step`."""
        for boundary in stages.into(self.line.stage):
            buffers = self._buffer(step % 2, boundary, like)
            source, group = self.line.ranks[boundary.source], self.line.group(boundary.source, boundary.target)
            works = [dist.irecv(buffer.whole, source, group=group) for buffer in buffers]
            self._arriving[boundary] = (step, buffers, works)

    def send(self, boundary: Boundary, kept: Kept) -> None:
        """Begin to send a boundary: a copy, for what comes after may work in place."""
        target, group = self.line.ranks[boundary.target], self.line.group(boundary.source, boundary.target)
        for tensor in kept.tensors:
            message = Message.of(tensor, kept.step)
            self._leaving.append((dist.isend(message.whole, target, group=group), message))

    def arrived(self) -> dict[Boundary, Kept]:
        """Wait for what was expected, and for what was sent."""
        found = {}
        for boundary, (step, buffers, works) in self._arriving.items():
            for work in works:
                work.wait()
            found[boundary] = self._kept(step, buffers)
        self._arriving = {}
        for work, _ in self._leaving:
            work.wait()
        self._leaving = []
        return found

    def hand_over(self, kept: Kept, target: int) -> None:
        """Send what the line begins from to a stage that lacks it, and wait."""
        for tensor in kept.tensors:
            dist.send(Message.of(tensor, kept.step).whole, self.line.ranks[target], group=self.line.down)

    def take_over(self, step: int, like: Tensors) -> Kept:
        """The other end of `hand_over`, by the last rank of the line."""
        messages = [Message.like(tensor) for tensor in like]
        for message in messages:
            dist.recv(message.whole, self.line.last, group=self.line.down)
        return self._kept(step, messages)

    def close(self) -> None:
        """Let what is on its way arrive: nobody needs it, but both ends have begun. Raises StaleTensor.

        That is for a tensor that was not of the step that it was taken for.
        """
        self.arrived()
        expected, tags = [step for step, _ in self._tags], [tag for _, tag in self._tags]
        self._tags = []
        for step, tag in zip(expected, torch.stack(tags).tolist() if tags else [], strict=True):
            if tag != step % TAGS:
                raise StaleTensor(f"a boundary was taken for one of step {step}, and its tag is {tag}")

    def _kept(self, step: int, messages: list[Message]) -> Kept:
        self._tags += [(step, message.tag[0].clone()) for message in messages]  # the buffers are used again
        return Kept(step, tuple(message.tensor for message in messages))

    @property
    def busy(self) -> bool:
        """True while something is on its way."""
        return bool(self._arriving or self._leaving)

    def _buffer(self, parity: int, boundary: Boundary, like: Callable[[int], Tensors]) -> list[Message]:
        if (parity, boundary) not in self._buffers:
            self._buffers[parity, boundary] = [Message.like(tensor) for tensor in like(boundary.after)]
        return self._buffers[parity, boundary]
