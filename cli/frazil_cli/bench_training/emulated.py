"""A stage of an emulated device: its forward, dX and dW sleep as long as those of a real one take.

Sleeping needs no core, so four such devices run side by side on two. What is real: torch's schedule and messages, the
autograd graph that decides what is computed, masks, and requires_grad. dX and dW are nodes of their own, as they are for
torch's own layers, so that a split backward runs each once.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn

from frazil_jobs.training.planning.actions import Kind
from frazil_jobs.training.planning.models import BlockTime
from frazil_jobs.training.planning.timings import StageTime

WIDTH = 8
"""Elements of an activation: messages are there, but small."""
_LLAMA_8B = {
    "attention.q": 4096 * 4096,
    "attention.k": 4096 * 1024,
    "attention.v": 4096 * 1024,
    "attention.o": 4096 * 4096,
    "feed_forward.gate": 4096 * 14336,
    "feed_forward.up": 4096 * 14336,
    "feed_forward.down": 14336 * 4096,
    "attention_norm": 4096,
    "feed_forward_norm": 4096,
}
"""Tensors of a block of the published run's model, by elements. A block's dW time is shared among them alike."""
_ELEMENTS = 4096
"""Elements of a real tensor for one of the emulated."""


class _Forward(torch.autograd.Function):
    """Sleeps for the forward, and in the backward for dX."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, forward: float, backward: float) -> torch.Tensor:
        ctx.seconds = backward
        time.sleep(forward)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        time.sleep(ctx.seconds)
        return gradients[0], None, None


class _Weights(torch.autograd.Function):
    """Adds nothing; in the backward it sleeps for dW of those weights that need it, and for `chain`, see EmulatedStage."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, seconds: Sequence[float], chain: Sequence[float], *weights: torch.Tensor
    ) -> torch.Tensor:
        ctx.seconds, ctx.chain = seconds, chain
        ctx.shapes = [weight.shape for weight in weights]
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        needed = ctx.needs_input_grad[3:]
        time.sleep(_wait(ctx.seconds, ctx.chain, needed))
        zeros = (torch.zeros(shape) if needs else None for shape, needs in zip(ctx.shapes, needed, strict=True))
        return None, None, None, *zeros


def _wait(seconds: Sequence[float], chain: Sequence[float], needed: Sequence[bool]) -> float:
    """Seconds of dW of those tensors that need it, and of what lies behind the foremost of them."""
    trained = [at for at, needs in enumerate(needed) if needs]
    return sum(seconds[at] for at in trained) + max((chain[at] for at in trained), default=0.0)


class EmulatedStage(nn.Module):
    """The blocks of one stage.

    The first stage has no dX to give away, but the gradient must reach its foremost trained tensor through all blocks behind
    that one: their dX is slept as the tensor's `chain`.
    """

    def __init__(self, blocks: Sequence[BlockTime], *, first: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self._forward_seconds = sum(block.forward for block in blocks)
        self._backward_seconds = 0.0 if first else sum(block.backward_input for block in blocks)
        whole = sum(_LLAMA_8B.values())
        seconds, chain = [], []
        for at, block in enumerate(blocks):
            # a ParameterDict would sort them, and the times would be those of others
            self.blocks.append(nn.ParameterList(torch.zeros(elements // _ELEMENTS) for elements in _LLAMA_8B.values()))
            seconds += [block.backward_weight * elements / whole for elements in _LLAMA_8B.values()]
            behind = sum(later.backward_input for later in blocks[at + 1 :]) if first else 0.0
            chain += [behind] * len(_LLAMA_8B)
        self._seconds, self._chain = tuple(seconds), tuple(chain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x of shape [microbatch, WIDTH], and back."""
        out: torch.Tensor = _Forward.apply(x, self._forward_seconds, self._backward_seconds)
        added: torch.Tensor = _Weights.apply(x.detach(), self._seconds, self._chain, *self.parameters())
        return out + added

    def seconds(self, kind: Kind, frozen: Collection[nn.Parameter]) -> float:
        """What a pass sleeps where these parameters are frozen in its microbatch."""
        skipped = set(frozen)
        weights = _wait(self._seconds, self._chain, [parameter not in skipped for parameter in self.parameters()])
        passes = StageTime(
            forward=self._forward_seconds,
            backward=self._backward_seconds + weights,
            backward_frozen=self._backward_seconds,
        )
        return passes.of(kind).full
