"""VAE decode shared by the ranks of a replica: each decodes its own rows, and every rank gets the whole picture.

    with split_decode(pipe, groups) as decode:
        ...                              # every rank calls the pipeline with an output type that decodes
        print(decode.reason)             # why it isn't shared, or None

Hooks on the decoder's layers: kernels get the neighbours' outermost rows, group norms the statistics of all rows,
attention the keys and values of all rows; everything else sees a smaller picture. That is the idea of DistriFusion's and
DistVAE's patches with nothing stale: the result equals the plain decode to rounding (1e-5 relative in float32). A decoder
whose structure isn't known (`structure.py`) is left alone. A picture with too few rows is decoded whole by the leader; the
other ranks, which have no use for it, get zeros.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import torch

from frazil_jobs.generation.decode.rows import Rows, gather_parts, statistics_of_all, with_halo
from frazil_jobs.generation.decode.structure import halo_of, layers_to_hook, why_whole
from frazil_jobs.generation.groups import RankGroups
from frazil_jobs.generation.hooks import ForwardHook, take_off

HOOK: Final = "frazil_decode"
LEAST_ROWS: Final = 16
"""Latent rows a rank (128 pixels of most models). With fewer, messages cost more than the rows that they spare."""


def split_decode(pipe: Any, groups: RankGroups, *, wanted: bool = True, least_rows: int = LEAST_ROWS) -> DecodeSplit:
    """Hook the decoder of `pipe.vae` so that all ranks of the replica share its rows. Call it on every rank.

    Where that can't be, nothing is hooked and `reason` says why; `wanted=False` is such a reason.
    """
    return DecodeSplit(getattr(pipe, "vae", None), groups, wanted=wanted, least_rows=least_rows)


@dataclass
class DecodeSplit:
    """The hooks on one decoder. In use, every rank of the replica has to decode the same latents at the same time."""

    vae: Any
    groups: RankGroups
    wanted: bool = field(default=True, kw_only=True)
    least_rows: int = field(default=LEAST_ROWS, kw_only=True)
    reason: str | None = field(default=None, init=False)
    """Why the ranks don't share the decode, or None where they do (for pictures of enough rows)."""

    def __post_init__(self) -> None:
        self._hand = threading.local()  # a smaller picture may be decoded beside a shared decode
        self.reason = self._why_whole()
        self._hooked: list[torch.nn.Module] = []
        if self.reason is not None:
            return
        for how, layer in layers_to_hook(self.vae.decoder):
            self._hook(layer, _LAYER_HOOKS[how](self))
        self._hook(self.vae.decoder, _DecoderHook(self))

    def _why_whole(self) -> str | None:
        if self.groups.grid.world == 1:
            return "there is one rank"
        if not self.wanted:
            return "it is turned off"
        return why_whole(self.vae)

    def _hook(self, module: torch.nn.Module, hook: ForwardHook) -> None:
        hook.put_on(module, HOOK)
        self._hooked.append(module)

    @property
    def rows(self) -> Rows | None:
        """Of the latent in this thread's hand; None outside of a shared decode."""
        return getattr(self._hand, "rows", None)

    @contextmanager
    def sharing(self, rows: Rows) -> Iterator[None]:
        """The layers called inside of the context hold this rank's part of `rows`."""
        self._hand.rows = rows
        try:
            yield
        finally:
            self._hand.rows = None

    @property
    def shared(self) -> bool:
        """True where all ranks have to take part in each decode."""
        return self.reason is None

    @property
    def said(self) -> str:
        """For the log and the manifest."""
        ranks = self.groups.grid.world
        return (
            f"whole: {self.reason}" if self.reason else f"rows shared by {ranks} ranks from {self.least_rows} a rank on"
        )

    def takes_all(self, latent: torch.Tensor) -> bool:
        """Whether all ranks take part in decoding `latent` (batch, channels, rows, width)."""
        return self.shared and self.shares(latent.shape[2])

    def shares(self, height: int) -> bool:
        """Whether a latent of `height` rows is shared: a function of its size alone, the same on every rank."""
        return height >= self.least_rows * self.groups.grid.world

    def close(self) -> None:
        """Take the hooks off."""
        while self._hooked:
            take_off(self._hooked.pop(), HOOK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _SharedHook(ForwardHook):
    """A hook that does nothing outside of a shared decode."""

    def __init__(self, split: DecodeSplit) -> None:
        super().__init__()
        self._split = split


class _DecoderHook(_SharedHook):
    """On the decoder: cuts this rank's rows out of the latent and puts all ranks' pictures together."""

    def new_forward(self, module: torch.nn.Module, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The whole picture of the whole latent (batch, channels, rows, width)."""
        split = self._split
        if args or kwargs or not split.shares(sample.shape[2]):
            return self.inner(sample, *args, **kwargs) if split.groups.rank == 0 else _nothing(module, sample)
        rows = Rows(sample.shape[2], split.groups.grid.world)
        mine = rows.of(split.groups.rank)
        with split.sharing(rows):
            part = self.inner(sample[:, :, mine.start : mine.stop].contiguous())
        scale = part.shape[2] // len(mine)
        return gather_parts(part, tuple(scale * count for count in rows.counts), split.groups, dim=2)


def _nothing(decoder: Any, latent: torch.Tensor) -> torch.Tensor:
    """Zeros of the shape of the picture."""
    scale = 2 ** sum(block.upsamplers is not None for block in decoder.up_blocks)
    batch, _, rows, columns = latent.shape
    return latent.new_zeros((batch, decoder.conv_out.out_channels, scale * rows, scale * columns))


class _HaloHook(_SharedHook):
    """On a kernel: computes a few rows more than this rank's own, and drops them."""

    def new_forward(self, module: torch.nn.Conv2d, sample: torch.Tensor) -> torch.Tensor:
        """This rank's rows of what the kernel makes of the whole."""
        if self._split.rows is None:
            return self.inner(sample)  # type: ignore[no-any-return]
        extended, above, below = with_halo(sample, halo_of(module), self._split.groups)
        made: torch.Tensor = self.inner(extended)
        return made[:, :, above : made.shape[2] - below].contiguous()


class _StatisticsHook(_SharedHook):
    """On a group norm: normalises by the statistics of all ranks' rows."""

    def new_forward(self, module: torch.nn.GroupNorm, sample: torch.Tensor) -> torch.Tensor:
        """This rank's rows (batch, channels, …) of what the norm makes of the whole."""
        if self._split.rows is None:
            return self.inner(sample)  # type: ignore[no-any-return]
        mean, variance = statistics_of_all(sample, module.num_groups, self._split.groups)
        each = module.num_channels // module.num_groups
        scale = torch.rsqrt(variance + module.eps).repeat_interleave(each, dim=1)
        shift = -mean.repeat_interleave(each, dim=1) * scale
        if module.affine:
            weight, bias = module.weight.float(), module.bias.float()
            scale, shift = scale * weight, shift * weight + bias
        shape = (*scale.shape, *([1] * (sample.ndim - 2)))
        return torch.addcmul(shift.view(shape), sample.float(), scale.view(shape)).to(sample.dtype)


class _TokensHook(_SharedHook):
    """On the projections to keys and values: gives those of all rows, for the queries of this rank's rows."""

    def new_forward(self, module: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        """Keys or values of all rows: (batch, rows · width, channels)."""
        projected: torch.Tensor = self.inner(tokens)
        rows = self._split.rows
        if rows is None:
            return projected
        width = projected.shape[1] // rows.counts[self._split.groups.rank]
        return gather_parts(projected, tuple(width * count for count in rows.counts), self._split.groups, dim=1)


_LAYER_HOOKS: Final[dict[str, type[_SharedHook]]] = {
    "halo": _HaloHook,
    "statistics": _StatisticsHook,
    "tokens": _TokensHook,
}
