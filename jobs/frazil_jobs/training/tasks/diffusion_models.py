"""The transformers of diffusers that can be trained: where each is cut, and what its pipeline makes of a caption.

Captions are encoded by the pipeline's own `encode_prompt`, so that training sees what generation will.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.cutting import Cut

Condition = dict[str, torch.Tensor]
"""Arguments of the transformer that say what a picture shows, each with a first dimension of 1."""

CAPTION_FIELD: Final = "spec.dataset.columns.caption"


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture."""

    cut: Cut
    condition: Callable[[Any, Any, Mapping[str, Any]], Condition]
    """Of pipeline, caption and the pipeline's own options."""
    nothing: Callable[[Any], Any]
    """The caption of guidance's other branch, of the transformer's configuration."""
    options: Mapping[str, Any]
    """Of `encode_prompt`, with their defaults."""


def _pixart(pipe: Any, caption: Any, chosen: Mapping[str, Any]) -> Condition:
    embeddings, mask, *_ = pipe.encode_prompt(
        [str(caption)], do_classifier_free_guidance=False, num_images_per_prompt=1, **chosen
    )
    return {"encoder_hidden_states": embeddings, "encoder_attention_mask": mask}


def _sd3(pipe: Any, caption: Any, chosen: Mapping[str, Any]) -> Condition:
    embeddings, _, pooled, _ = pipe.encode_prompt(
        prompt=[str(caption)], prompt_2=None, prompt_3=None, do_classifier_free_guidance=False, **chosen
    )
    return {"encoder_hidden_states": embeddings, "pooled_projections": pooled}


def _dit(pipe: Any, caption: Any, chosen: Mapping[str, Any]) -> Condition:
    classes = int(pipe.transformer_config["num_embeds_ada_norm"])
    if isinstance(caption, bool) or not isinstance(caption, int) or not 0 <= caption <= classes:
        raise BadInput(
            f"{caption!r} is no class from 0 to {classes - 1}", field=CAPTION_FIELD,
            remedy="a DiT is conditioned on class numbers: name their column",
        )  # fmt: skip
    return {"class_labels": torch.tensor([caption])}


FAMILIES: Final[Mapping[str, Family]] = {
    "PixArtTransformer2DModel": Family(
        cut=Cut(
            primary="hidden_states",
            blocks="transformer_blocks",
            entries={"pos_embed": 1, "adaln_single": 2, "caption_projection": 1},
            heads=("norm_out", "scale_shift_table", "proj_out"),
            output="sample",
        ),
        condition=_pixart,
        nothing=lambda _config: "",
        options={"max_sequence_length": 300, "clean_caption": False},
    ),
    "SD3Transformer2DModel": Family(
        cut=Cut(
            primary="hidden_states",
            blocks="transformer_blocks",
            entries={"pos_embed": 1, "time_text_embed": 1, "context_embedder": 1},
            moving={"hidden_states": 0, "encoder_hidden_states": 2},
            heads=("norm_out", "proj_out"),
            output="sample",
        ),
        condition=_sd3,
        nothing=lambda _config: "",
        options={"max_sequence_length": 256},
    ),
    "DiTTransformer2DModel": Family(
        cut=Cut(
            primary="hidden_states",
            blocks="transformer_blocks",
            entries={"pos_embed": 1, "transformer_blocks.0.norm1.emb": 1},
            heads=("norm_out", "proj_out_1", "proj_out_2"),
            output="sample",
        ),
        condition=_dit,
        nothing=lambda config: int(config["num_embeds_ada_norm"]),
        options={},
    ),
}
