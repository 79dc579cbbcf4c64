"""Which decoders can be cut into rows: those made of layers whose reach over rows is known, by class and by setting.

A layer looks at its own row (activations, 1 × 1 kernels), at a fixed number of neighbouring rows (kernels), at sums over
all rows (group norm) or at all rows (attention). Anything else, and any of these in a form that isn't known, refuses the
whole decoder: it is then decoded as it always was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, UpDecoderBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

_ROW_BY_ROW: Final = (nn.SiLU, nn.GELU, nn.Mish, nn.ReLU, nn.Dropout, nn.Identity, nn.Linear)
_CONTAINERS: Final = (Decoder, UNetMidBlock2D, UpDecoderBlock2D, nn.ModuleList)


def why_whole(vae: Any) -> str | None:
    """Why the decoder of `vae` can't be cut into rows, as a clause, or None when it can."""
    decoder = getattr(vae, "decoder", None)
    if not isinstance(decoder, Decoder):
        return f"the decoder of {type(vae).__name__} is not one whose layers are known"
    return next(_unknown(decoder), None)


def _unknown(module: nn.Module) -> Iterator[str]:
    for name, layer in module.named_modules():
        reason = _refuses(layer)
        if reason:
            yield f"{name} ({type(layer).__name__}) {reason}"


def _refuses(layer: nn.Module) -> str | None:
    if isinstance(layer, nn.Conv2d):
        return None if keeps_rows(layer) else "changes the number of rows or pads them with other than zeros"
    if isinstance(layer, Attention):
        return _refuses_attention(layer)
    if isinstance(layer, Upsample2D):
        plain = layer.interpolate and layer.norm is None and not layer.use_conv_transpose
        return None if plain else "is not a nearest-neighbour enlargement"
    if isinstance(layer, ResnetBlock2D):
        unconditioned = layer.time_emb_proj is None and layer.time_embedding_norm in ("default", "group")
        plain = layer.upsample is None and layer.downsample is None and unconditioned
        return None if plain else "changes sizes or takes a condition"
    if isinstance(layer, (nn.GroupNorm, *_ROW_BY_ROW, *_CONTAINERS)):
        return None
    return "has an unknown reach over rows"


def keeps_rows(layer: nn.Conv2d) -> bool:
    """True for a kernel that gives as many rows as it takes, with zeros outside."""
    (kernel, _), (stride, _) = layer.kernel_size, layer.stride
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or stride != 1 or kernel % 2 == 0:
        return False
    return layer.padding[0] == halo_of(layer)


def halo_of(layer: nn.Conv2d) -> int:
    """Rows that a kernel needs of each neighbour."""
    return layer.dilation[0] * (layer.kernel_size[0] - 1) // 2


def _refuses_attention(layer: Attention) -> str | None:
    processor: object = layer.processor
    if type(processor) is not AttnProcessor2_0:
        return f"attends by {type(processor).__name__}"
    if layer.spatial_norm is not None or layer.fused_projections:
        return "takes a condition, or fuses its projections"
    if not isinstance(layer.to_k, nn.Linear) or not isinstance(layer.to_v, nn.Linear):
        return "has projections of an unknown kind"
    return None


def layers_to_hook(decoder: nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """What has to look beyond its own rows, each with how: "halo", "statistics" or "tokens"."""
    for layer in decoder.modules():
        if isinstance(layer, nn.Conv2d) and halo_of(layer):
            yield "halo", layer
        elif isinstance(layer, nn.GroupNorm):
            yield "statistics", layer
        elif isinstance(layer, Attention):
            yield "tokens", layer.to_k
            yield "tokens", layer.to_v
