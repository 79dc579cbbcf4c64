"""Denoisers to count: the published ones of `configs/` (SDXL, SD3-medium), and that of any pipeline folder.

A config is what the publisher's own says, without weights. `Model.counted(height, width)` is one branch's forward for one
picture of that size in pixels.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import torch

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.base.files import read_json
from frazil_jobs.generation.costs.counting import Counted, count
from frazil_jobs.generation.guidance import DENOISERS

CONFIGS: Final = Path(__file__).parent / "configs"
PUBLISHED: Final = ("sdxl", "sd3")
_CLIP_TOKENS: Final = 77


class CannotCount(BadConfiguration):
    """Nothing is known of the arguments of a denoiser of this class."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A denoiser and its decoder, as configs."""

    name: str
    kind: str
    """Class of the denoiser."""
    config: Mapping[str, Any]
    text_tokens: int
    """Of one prompt, padded as its pipeline pads."""
    vae: Mapping[str, Any] | None
    """`class` and `config` of the decoder."""

    @property
    def scale(self) -> int:
        """Pixels a latent cell, along each side."""
        levels = (self.vae or {}).get("config", {}).get("block_out_channels", [0] * 4)
        return int(2 ** (len(levels) - 1))

    def denoiser(self) -> Any:
        """The denoiser on the meta device."""
        with torch.device("meta"):
            return getattr(diffusers, self.kind)(**self.config).eval()

    def counted(self, height: int, width: int) -> Counted:
        """One branch's forward for a picture of height × width pixels. Raises CannotCount."""
        denoiser = self.denoiser()
        with torch.device("meta"):
            arguments = arguments_of(
                denoiser, rows=height // self.scale, columns=width // self.scale, text_tokens=self.text_tokens
            )
        return count(denoiser, **arguments)

    def decoded(self, height: int, width: int) -> Counted | None:
        """The decode of one picture; None for a decoder of another kind than AutoencoderKL."""
        if self.vae is None or self.vae.get("class") != "AutoencoderKL":
            return None
        with torch.device("meta"):
            autoencoder: Any = diffusers.AutoencoderKL
            decoder = autoencoder(**self.vae["config"]).eval().decoder
            latent = torch.empty(1, decoder.conv_in.in_channels, height // self.scale, width // self.scale)
        return count(decoder, latent)

    def latent_elements(self, height: int, width: int) -> int:
        """Numbers in one branch's prediction for one picture."""
        channels = int(self.config.get("out_channels") or self.config["in_channels"])
        cells = (height // self.scale) * (width // self.scale)
        latent = int((self.vae or {}).get("config", {}).get("latent_channels", channels))
        if channels == 4 * latent:
            channels //= 4  # two by two latent cells are packed into one token
        return channels * cells


@functools.cache
def published(name: str) -> Model:
    """One of PUBLISHED. Raises BadConfiguration for another name."""
    if name not in PUBLISHED:
        raise BadConfiguration(f"there is no config {name!r}", remedy=f"use {' or '.join(PUBLISHED)}, or a folder")
    document = json.loads((CONFIGS / f"{name}.json").read_text())
    return Model(
        name=name,
        kind=document["class"],
        config=document["config"],
        text_tokens=document["text_tokens"],
        vae=document["vae"],
    )


def of_folder(folder: Path) -> Model:
    """The first denoiser of a pipeline folder in diffusers' format. Raises BadConfiguration."""
    index = read_json(folder / "model_index.json")
    name = next((name for name in DENOISERS if (index.get(name) or [None])[0] == "diffusers"), None)
    if name is None:
        raise CannotCount(f"{folder} has no denoiser of diffusers")
    kind = index[name][1]
    vae = index.get("vae") or [None, None]
    return Model(
        name=folder.name,
        kind=kind,
        config=_own(getattr(diffusers, kind), read_json(folder / name / "config.json")),
        text_tokens=_text_tokens(index["_class_name"]),
        vae={"class": vae[1], "config": _own(getattr(diffusers, vae[1]), read_json(folder / "vae" / "config.json"))}
        if vae[1]
        else None,
    )


def _own(kind: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the class takes, without diffusers' notes on itself."""
    known = inspect.signature(kind.__init__).parameters
    return {name: value for name, value in config.items() if name in known}


def _text_tokens(pipeline: str) -> int:
    """Tokens of a prompt: the call's own `max_sequence_length`, CLIP's 77 without one, both side by side in SD3."""
    call = inspect.signature(inspect.unwrap(getattr(diffusers, pipeline).__call__)).parameters
    longest = call["max_sequence_length"].default if "max_sequence_length" in call else None
    if not isinstance(longest, int):
        return _CLIP_TOKENS
    return longest + _CLIP_TOKENS if pipeline.startswith("StableDiffusion3") else longest


def arguments_of(denoiser: Any, *, rows: int, columns: int, text_tokens: int) -> dict[str, Any]:
    """Arguments of one branch's call for one latent of rows × columns, made on the current device. Raises CannotCount."""
    config, kind = denoiser.config, type(denoiser).__name__
    if kind not in _ARGUMENTS:
        raise CannotCount(
            f"the arguments of {kind} are not known, so its cost can't be counted",
            remedy=f"counted are {', '.join(sorted(_ARGUMENTS))}",
        )
    found: dict[str, Any] = _ARGUMENTS[kind](config, rows, columns, text_tokens)
    return found


def _unet(config: Any, rows: int, columns: int, tokens: int) -> dict[str, Any]:
    context = config.cross_attention_dim
    width = context if isinstance(context, int) else context[0]
    arguments: dict[str, Any] = {
        "sample": torch.empty(1, config.in_channels, rows, columns),
        "timestep": torch.empty(1),
        "encoder_hidden_states": torch.empty(1, tokens, width),
    }
    if config.addition_embed_type == "text_time":
        sizes = 6 * config.addition_time_embed_dim
        pooled = config.projection_class_embeddings_input_dim - sizes
        arguments["added_cond_kwargs"] = {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}
    return arguments


def _sd3(config: Any, rows: int, columns: int, tokens: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.empty(1, config.in_channels, rows, columns),
        "encoder_hidden_states": torch.empty(1, tokens, config.joint_attention_dim),
        "pooled_projections": torch.empty(1, config.pooled_projection_dim),
        "timestep": torch.empty(1),
    }


def _pixart(config: Any, rows: int, columns: int, tokens: int) -> dict[str, Any]:
    sizes: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    if config.use_additional_conditions or (config.use_additional_conditions is None and config.sample_size == 128):
        sizes = {"resolution": torch.empty(1, 2), "aspect_ratio": torch.empty(1, 1)}
    return {
        "hidden_states": torch.empty(1, config.in_channels, rows, columns),
        "encoder_hidden_states": torch.empty(1, tokens, config.caption_channels),
        "encoder_attention_mask": torch.empty(1, tokens),
        "timestep": torch.empty(1),
        "added_cond_kwargs": sizes,
    }


def _flux(config: Any, rows: int, columns: int, tokens: int) -> dict[str, Any]:
    cells = (rows // 2) * (columns // 2)
    return {
        "hidden_states": torch.empty(1, cells, config.in_channels),
        "encoder_hidden_states": torch.empty(1, tokens, config.joint_attention_dim),
        "pooled_projections": torch.empty(1, config.pooled_projection_dim),
        "timestep": torch.empty(1),
        "img_ids": torch.empty(cells, 3),
        "txt_ids": torch.empty(tokens, 3),
        **({"guidance": torch.empty(1)} if config.guidance_embeds else {}),
    }


_ARGUMENTS: Final[Mapping[str, Any]] = {
    "UNet2DConditionModel": _unet,
    "SD3Transformer2DModel": _sd3,
    "PixArtTransformer2DModel": _pixart,
    "FluxTransformer2DModel": _flux,
}
