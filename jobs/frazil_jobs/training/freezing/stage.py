"""A pipeline stage that freezes parameters for single microbatches, and times what it does.

A parameter whose requires_grad is False while a microbatch's forward runs is no part of that microbatch's graph: its dW is
never computed, custom kernels and compiled stages obey it, and what dW alone would need is not kept. Toggling it between
forward and backward would save nothing. Around the backward the same mask is set once more for the sake of checkpointing,
which runs the forward again in there and must find it as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage

from frazil_jobs.training.freezing.clock import ActionClock
from frazil_jobs.training.planning.actions import Action, Kind

Frozen = Sequence[Sequence[nn.Parameter]]
"""The parameters that are frozen, by microbatch."""


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """These take no part in what is recorded inside. They must require gradients, and do again afterwards, come what may."""
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


class MixedPrecisionStage(PipelineStage):
    """A stage whose forward runs under autocast, also where torch runs it once to learn shapes and number types.

    The backward stays outside: each of its operations takes the number type that its forward had.
    """

    def __init__(
        self,
        module: nn.Module,
        index: int,
        stages: int,
        *,
        device: torch.device,
        group: dist.ProcessGroup | None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(module, index, stages, device, group=group)
        self._autocast = autocast

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forward and loss."""
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def forward_maybe_with_nosync(self, *args: Any, **kwargs: Any) -> Any:
        """The forward of a microbatch."""
        with self.autocast():
            return super().forward_maybe_with_nosync(*args, **kwargs)  # type: ignore[no-untyped-call]

    def get_local_bwd_output(self, mb_index: int) -> Any:
        """What a stage hands to its neighbour on the same rank: nothing in an evaluation, where torch would raise."""
        return super().get_local_bwd_output(mb_index) if self.has_backward else None  # type: ignore[no-untyped-call]

    def set_local_bwd_input(self, next_stage_bwd_outputs: Any, mb_index: int) -> None:
        """The same from the neighbour's side."""
        if self.has_backward:
            super().set_local_bwd_input(next_stage_bwd_outputs, mb_index)

    def _compute_outputs(self, *args: Any, **kwargs: Any) -> Any:
        with self.autocast():
            return super()._compute_outputs(*args, **kwargs)


class FreezingStage(MixedPrecisionStage):
    """A stage that freezes what `masks` says for each microbatch. torch calls the overridden methods around the compute of
    an action only: waiting for a neighbour happens outside, so the clock doesn't see it."""

    def __init__(
        self,
        module: nn.Module,
        index: int,
        stages: int,
        *,
        device: torch.device,
        group: dist.ProcessGroup | None,
        clock: ActionClock,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(module, index, stages, device=device, group=group, autocast=autocast)
        self.masks: Frozen = ()
        """Set before each batch. Empty: nothing is frozen."""
        self._clock = clock
        self._last_forward: Action | None = None

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        """F."""
        self._last_forward = Action(Kind.F, self.stage_index, fwd_chunk_id)
        with self._doing(self._last_forward):
            return super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Any = None, full_backward: bool = True, last_backward: bool = False
    ) -> Any:
        """B, or I of a split backward (at the first stage torch does nothing in I)."""
        kind = Kind.B if full_backward else Kind.I
        with self._doing(Action(kind, self.stage_index, bwd_chunk_id)):
            return super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        """W of a split backward, which at the first stage is the whole backward."""
        kind = Kind.B if self.is_first else Kind.W
        with self._doing(Action(kind, self.stage_index, bwd_chunk_id)):
            return super().backward_weight_one_chunk(bwd_chunk_id, *args, **kwargs)

    def loss(self, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """The loss function, counted to the forward before it, and under autocast. For the last stage."""

        def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
            with self.autocast():
                if self._last_forward is None:  # torch is learning shapes
                    return function(*args, **kwargs)
                with self._clock.timed(self._last_forward):
                    return function(*args, **kwargs)

        return counted

    def begin_batch(self, masks: Frozen) -> None:
        """Forget the last batch."""
        self.masks = masks
        self._last_forward = None

    @contextmanager
    def _doing(self, action: Action) -> Iterator[None]:
        with frozen(self.masks[action.microbatch] if self.masks else ()):
            if action.kind is Kind.I and self.is_first:
                yield
            else:
                with self._clock.timed(action):
                    yield
