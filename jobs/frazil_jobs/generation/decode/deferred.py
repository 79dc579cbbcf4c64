"""Decoding beside the denoising of the next batch: a pipeline call returns before its pictures are decoded.

    deferral = defer_decode(pipe)
    with deferral.active():
        answer = pipe(**arguments)          # its images are a `DeferredOutput`, or what they always were
    arrays = resolved(answer.images)        # in another thread: decode and postprocess, the same calls, the same bytes

`vae.decode` returns a stand-in. If the pipeline hands it to its image processor untouched, that call is put off as well;
if it does anything else with it (a watermark, a safety checker, a resize), the stand-in decodes there and then and the call
goes on as it always did. No pipeline code is copied and none has to be known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.utils._pytree import tree_map_only

PROCESSORS: Final = (("image_processor", "postprocess"), ("video_processor", "postprocess_video"))
SPARE: Final = 1.2
"""Memory that has to be free on a GPU for a decode beside the next batch, in parts of what the first decode took."""


class Picture(torch.Tensor):
    """Stands in for a decoded picture. Anything done with it, its shape asked for even, is done with the picture itself."""

    decode: Callable[[], torch.Tensor]

    @staticmethod
    def of(decode: Callable[[], torch.Tensor]) -> Picture:
        """A stand-in for what `decode` returns, which is called at most once."""
        stand_in = torch.Tensor._make_subclass(Picture, torch.empty(0))
        stand_in.decode = _once(decode)
        return stand_in

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            args, kwargs = tree_map_only(Picture, lambda stand_in: stand_in.decode(), (args, kwargs or {}))
            return func(*args, **kwargs)


@dataclass
class DeferredOutput:
    """What a pipeline's image processor was asked for, not made yet."""

    make: Callable[[], Any]


def resolved(output: Any) -> Any:
    """The arrays of a pipeline's answer, made now if they weren't yet. Any thread may call it."""
    return output.make() if isinstance(output, DeferredOutput) else output


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    lock = threading.Lock()
    made: list[Any] = []

    def call() -> Any:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return call


def defer_decode(pipe: Any, *, in_turn: Callable[[torch.Tensor], bool] = lambda _: False) -> Deferral:
    """Put `pipe.vae.decode` and its processors' last call in the hands of a `Deferral`, off until `active`.

    `in_turn` says of a latent whether it has to be decoded in turn, because other ranks take part.
    """
    return Deferral(pipe, in_turn)


@dataclass
class Deferral:
    """Puts off the decodes of one pipeline, one at a time."""

    pipe: Any
    in_turn: Callable[[torch.Tensor], bool] = lambda _: False
    _on: bool = field(default=False, init=False)
    _first: tuple[int, int] | None = field(default=None, init=False)
    """Numbers in the first latent and bytes that its decode took, on a GPU."""

    def __post_init__(self) -> None:
        vae: Any = getattr(self.pipe, "vae", None)
        if not callable(getattr(vae, "decode", None)):
            return
        self._decode = vae.decode
        self._dtype = vae.dtype
        device = vae.device
        cuda: Any = torch.cuda  # its streams and events have no types
        self._stream = cuda.Stream(device) if device.type == "cuda" else None
        vae.decode = self._put_off_decode
        for name, method in PROCESSORS:
            processor = getattr(self.pipe, name, None)
            if processor is not None:
                setattr(processor, method, self._putting_off(getattr(processor, method)))

    @contextmanager
    def active(self) -> Iterator[None]:
        """Decodes of pipeline calls inside of the context are put off."""
        self._on = True
        try:
            yield
        finally:
            self._on = False

    def _put_off_decode(self, z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        # A pipeline that changes the decoder's type for the call (SDXL in float16) changes it back right after.
        if not self._on or self.in_turn(z) or self.pipe.vae.dtype != self._dtype or not self._has_room(z):
            return self._measured(z, *args, **kwargs)
        cuda: Any = torch.cuda
        ready = cuda.Event() if self._stream else None
        if ready is not None:
            ready.record()
        grad = torch.is_grad_enabled()

        def decode() -> torch.Tensor:
            beside = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
            with torch.set_grad_enabled(grad), beside:
                if self._stream is not None and ready is not None:
                    self._stream.wait_event(ready)
                    z.record_stream(self._stream)
                picture: torch.Tensor = self._decode(z, *args, **{**kwargs, "return_dict": False})[0]
            if self._stream is not None:
                self._stream.synchronize()
            return picture

        picture = Picture.of(decode)
        if kwargs.get("return_dict", args[0] if args else True) is False:
            return (picture,)
        from diffusers.models.autoencoders.vae import DecoderOutput

        return DecoderOutput(sample=picture)

    def _putting_off(self, process: Callable[..., Any]) -> Callable[..., Any]:
        def putting_off(*args: Any, **kwargs: Any) -> Any:
            if not any(isinstance(value, Picture) for value in (*args, *kwargs.values())):
                return process(*args, **kwargs)

            def make() -> Any:
                made, named = tree_map_only(Picture, lambda stand_in: stand_in.decode(), (args, kwargs))
                return process(*made, **named)

            return DeferredOutput(_once(make))

        return putting_off

    def _measured(self, z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The decode in turn; the first one on a GPU tells what a decode takes."""
        if z.device.type != "cuda" or self._first is not None:
            return self._decode(z, *args, **kwargs)
        torch.cuda.reset_peak_memory_stats(z.device)
        before = torch.cuda.memory_allocated(z.device)
        output = self._decode(z, *args, **kwargs)
        self._first = z.numel(), torch.cuda.max_memory_allocated(z.device) - before
        return output

    def _has_room(self, z: torch.Tensor) -> bool:
        """Whether a decode fits beside what denoising took so far. (The first on a GPU is made in turn, and measured.)"""
        if z.device.type != "cuda":
            return True
        if self._first is None:
            return False
        elements, taken = self._first
        free, _ = torch.cuda.mem_get_info(z.device)
        return free >= SPARE * taken * z.numel() / elements
