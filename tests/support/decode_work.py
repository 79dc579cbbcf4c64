"""What the ranks of a `RankPool` are asked to do in tests of the shared decode."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import rank_work
import tiny_parts as parts
import torch

from frazil_jobs.generation.decode.split import split_decode
from frazil_jobs.generation.groups import RankGroups

DECODERS: dict[str, dict[str, Any]] = {
    "three levels with attention": {
        "block_out_channels": (8, 16, 16),
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "layers_per_block": 2,
        "norm_num_groups": 4,
    },
    "two levels without attention": {
        "block_out_channels": (8, 8),
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "mid_block_add_attention": False,
        "norm_num_groups": 2,
    },
    "one level, as of SD3": {
        "block_out_channels": (8,),
        "norm_num_groups": 8,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
}


def vae_of(name: str) -> Any:
    """An AutoencoderKL whose weights are large enough that every layer shows in the picture."""
    return parts.liven(parts.seeded(lambda: diffusers.AutoencoderKL(**DECODERS[name])), 1.2)


def latent_of(rows: int, columns: int = 6, batch: int = 1) -> torch.Tensor:
    """A latent with an offset and a slope down its rows: a norm by part of them would show."""
    latent = torch.randn(batch, 4, rows, columns, generator=torch.Generator().manual_seed(rows))
    return latent + torch.linspace(-3, 5, rows)[:, None]


def decode(
    name: str, *, ranks: int, sizes: list[tuple[int, int, int]], dtype: str = "float32", least_rows: int = 1
) -> list[dict[str, Any]]:
    """The pictures of latents of `sizes` (rows, columns, batch), decoded one after the other, and what was sent."""
    groups = groups_of(ranks)
    vae = vae_of(name).to(getattr(torch, dtype))
    results = []
    with split_decode(SimpleNamespace(vae=vae), groups, least_rows=least_rows) as split, torch.no_grad():
        for rows, columns, batch in sizes:
            messages: list[tuple[str, int]] = []
            with rank_work.messages(messages):
                picture = vae.decode(latent_of(rows, columns, batch).to(vae.dtype), return_dict=False)[0]
            results.append({"picture": picture, "messages": messages, "reason": split.reason})
    with torch.no_grad():
        plain = vae.decode(latent_of(*sizes[0]).to(vae.dtype), return_dict=False)[0]
    return [*results, {"picture": plain, "messages": [], "reason": "the hooks are off"}]


def groups_of(ranks: int) -> RankGroups:
    """Two conditioning ranks, or two with two sequence parts each."""
    return rank_work.groups_for(2, ranks // 2)
