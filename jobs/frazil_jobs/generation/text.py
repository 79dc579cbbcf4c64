"""Per-rank text encoding: each conditioning rank encodes the prompts of one branch, and gets the other's by a gather.

A pipeline's `encode_prompt` calls each of its text encoders once for the prompts and once for the negative prompts, and
mixes what it gets in ways of its own. The rank that skips a call lets the encoder return NaN; whatever of the result
came from that call is then NaN on this rank and a number on the other, so that one gather a tensor completes it, element by
element and bit for bit, with nothing known of the pipeline. The first batch is encoded whole by every rank: it shows
how often each encoder is called and what it returns. Pipelines that don't work like that are left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from frazil_jobs.base.log import get_logger
from frazil_jobs.generation.exchange import gather
from frazil_jobs.generation.groups import RankGroups
from frazil_jobs.generation.hooks import ForwardHook, take_off

HOOK: Final = "frazil_text"
ENCODERS: Final = ("text_encoder", "text_encoder_2", "text_encoder_3")

log = get_logger(__name__)


@dataclass
class TextShare:
    """The hooks on one pipeline's text encoders. Call it on every rank; `close` takes them off."""

    pipe: Any
    groups: RankGroups
    reason: str | None = field(default=None, init=False)
    """Why each rank encodes everything, as far as is known; None where they share it."""

    def __post_init__(self) -> None:
        self._inside = False
        self._whole = True
        self._counts: dict[int, int] = {}
        self._usual: dict[int, int] = {}
        """Calls of each encoder in one `encode_prompt`, of the first."""
        self._forms: dict[Any, Any] = {}
        self._hooked: list[torch.nn.Module] = []
        encoders = [getattr(self.pipe, name, None) for name in ENCODERS]
        modules = [module for module in encoders if isinstance(module, torch.nn.Module)]
        if self.groups.grid.conditioning == 1:
            self.reason = "there is one conditioning rank"
        elif not modules or not hasattr(self.pipe, "encode_prompt"):
            self.reason = f"{type(self.pipe).__name__} has no encode_prompt with text encoders"
        if self.reason:
            return
        for module in {id(module): module for module in modules}.values():
            _EncoderHook(self).put_on(module, HOOK)
            self._hooked.append(module)
        self._encode_prompt: Callable[..., Any] = self.pipe.encode_prompt
        self.pipe.encode_prompt = self._shared

    def close(self) -> None:
        """Give the pipeline its own `encode_prompt` back."""
        if self._hooked:
            self.pipe.encode_prompt = self._encode_prompt
        while self._hooked:
            take_off(self._hooked.pop(), HOOK)

    def _shared(self, *args: Any, **kwargs: Any) -> Any:
        """What `encode_prompt` returns, of which this rank encoded its branch."""
        self._counts, self._inside = {}, True
        self._whole = self.reason is not None or not self._usual
        try:
            mine = self._encode_prompt(*args, **kwargs)
        finally:
            self._inside = False
        if self._whole:
            self._learn()
            return mine
        complete = tree_map(self._completed, mine)
        if any(_has_nan(leaf) for leaf in tree_flatten(complete)[0]):
            self._leave_alone(f"{type(self.pipe).__name__} mixes the branches' text")
            return self._encode_prompt(*args, **kwargs)
        return complete

    def _learn(self) -> None:
        if self._usual or self.reason:
            return
        self._usual = self._counts
        if set(self._counts.values()) != {self.groups.grid.conditioning}:
            times = ", ".join(str(count) for count in self._counts.values()) or "never"
            self._leave_alone(f"{type(self.pipe).__name__} calls its text encoders {times} times for a prompt")

    def _leave_alone(self, reason: str) -> None:
        """From now on every rank encodes everything. The same on all ranks: from data that all of them hold."""
        self.reason = reason
        log.info("each rank encodes all text", reason=reason)

    def encode(self, module: torch.nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """One call of an encoder: this rank's, or a stand-in of NaN for another's."""
        if not self._inside or self.reason:
            return forward(*args, **kwargs)
        number = self._counts.get(id(module), 0)
        self._counts[id(module)] = number + 1
        form = (id(module), _shapes((args, kwargs)))
        mine = number % self.groups.grid.conditioning == self.groups.place.branch
        if self._whole or mine or form not in self._forms:
            output = forward(*args, **kwargs)
            self._forms[form] = tree_map(_valueless, output)
            return output
        return tree_map(_nothing, self._forms[form])

    def _completed(self, value: Any) -> Any:
        """A tensor with the other ranks' numbers where this one has none."""
        if not _is_float(value):
            return value
        every = gather(value.unsqueeze(0), self.groups)
        for other in every:
            value = torch.where(torch.isnan(value), other, value)
        return value


class _EncoderHook(ForwardHook):
    """Sends each call of a text encoder to the share."""

    def __init__(self, share: TextShare) -> None:
        super().__init__()
        self._share = share

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What the share makes of the call."""
        return self._share.encode(module, self.inner, args, kwargs)


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _has_nan(value: Any) -> bool:
    return _is_float(value) and bool(torch.isnan(value).any())


def _shapes(arguments: Any) -> str:
    leaves, spec = tree_flatten(arguments)
    return str(
        tree_unflatten([str(leaf.shape) if isinstance(leaf, torch.Tensor) else repr(leaf) for leaf in leaves], spec)
    )


@dataclass(frozen=True)
class _Form:
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device


def _valueless(value: Any) -> Any:
    return _Form(value.shape, value.dtype, value.device) if _is_float(value) else value


def _nothing(value: Any) -> Any:
    if not isinstance(value, _Form):
        return value
    return torch.full(value.shape, torch.nan, dtype=value.dtype, device=value.device)
