"""DiffusionTransformer: noise or velocity of pictures, with transformers of diffusers in their own pipeline folder."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
from diffusers.models.embeddings import LabelEmbedding
from torch import nn
from torch.nn import functional

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.data.pictures import Picture
from frazil_jobs.training.draws import seed_of
from frazil_jobs.training.planning.estimate import Shape, shape_of
from frazil_jobs.training.tasks.base import MODEL_FIELD, Batch, Row, Task, options, unsupported
from frazil_jobs.training.tasks.diffusion_models import FAMILIES, Condition
from frazil_jobs.training.tasks.noising import Noising

COMPONENT: Final = "transformer"
CACHED_BYTES: Final = 256 << 20
"""Encoded captions that are kept: data sets of few captions are encoded once."""
_WEIGHTS: Final = (".safetensors", ".bin", ".index.json")


class DiffusionTransformer(Task):
    """Mean squared error of what the folder's scheduler says is predicted."""

    weights_name = "diffusion_pytorch_model"
    weights_folder = COMPONENT

    def __init__(self, job: TrainingJob, folder: Path) -> None:
        super().__init__(job, folder)
        config = self._read(f"{COMPONENT}/config.json")
        self._class = str(config.get("_class_name"))
        if self._class not in FAMILIES:
            raise unsupported(self._class, list(FAMILIES), job.spec.task)
        self.family = FAMILIES[self._class]
        self._cls: Any = getattr(diffusers, self._class)
        self.config = {**_defaults(self._cls), **config}
        chosen = options(
            job, {"captionDropout": 0.1, **{_camel(name): value for name, value in self.family.options.items()}}
        )
        self._dropout = float(chosen.pop("captionDropout"))
        if not 0 <= self._dropout <= 1:
            raise BadConfiguration("must be between 0 and 1", field="spec.dataset.extra.captionDropout")
        self._options = {name: chosen[_camel(name)] for name in self.family.options}
        self.blocks = int(self.config["num_layers"])
        kept = {name: width for name, width in self.family.cut.entries.items() if self._has(name)}
        self.cut = replace(self.family.cut, entries=kept)
        self._channels = int(self.config["in_channels"])
        self.index = self._read("model_index.json")
        self._scale = self._pixels_a_latent()
        side = self.config["sample_size"]
        self._pixels = job.spec.dataset.image_size or int(side) * self._scale
        patch = self._scale * int(self.config["patch_size"])
        if self._pixels % patch:
            raise BadConfiguration(
                f"{self._pixels} pixels are no whole number of patches of {patch}",
                field="spec.dataset.imageSize",
                remedy=f"use {max(1, round(self._pixels / patch)) * patch}",
            )
        self.picture = Picture(size=self._pixels)
        self._pipe: Any = None
        self._noising: Noising | None = None
        self._encoded: OrderedDict[Any, Condition] = OrderedDict()
        self._encoded_bytes = 0

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / name).read_text())
        except (OSError, ValueError) as error:
            raise BadConfiguration(
                f"{self.folder / name} can't be read: {error}",
                field=MODEL_FIELD,
                remedy="name a pipeline folder in diffusers' format; its transformer needs a config only "
                "(initialWeights: Random)",
            ) from None
        return found

    def _has(self, entry: str) -> bool:
        return entry != "caption_projection" or self.config.get("caption_channels") is not None

    def _pixels_a_latent(self) -> int:
        if not self.index.get("vae"):
            return 1
        levels = self._read("vae/config.json").get("block_out_channels", [0] * 4)
        return int(2 ** (len(levels) - 1))

    # --- the model ---

    def model(self) -> nn.Module:
        """The whole transformer."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.spec.seed, "weights"))
            if self.spec.initial_weights == "Random":
                model: nn.Module = self._cls.from_config(_plain(self.config)).float()
            else:
                model = self._cls.from_pretrained(
                    self.folder / COMPONENT, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True,
                    variant=self.spec.model.variant,
                )  # fmt: skip
        for module in model.modules():
            if isinstance(module, LabelEmbedding):
                module.dropout_prob = 0.0  # labels are dropped here, for all blocks alike
        return model.train()

    def shape(self) -> Shape:
        """Counted from its configuration."""
        return shape_of(self.spec.task, self.config, latent_side=self._pixels // self._scale)

    def sample(self) -> torch.Tensor:
        """Latents, or pixels (channels, height, width)."""
        side = self._pixels // self._scale
        return torch.zeros(self._channels, side, side)

    # --- batches ---

    def to(self, device: torch.device) -> None:
        """Load autoencoder, text encoders and scheduler; they are not trained."""
        super().to(device)
        pipeline: Any = diffusers.DiffusionPipeline
        self._pipe = pipeline.from_pretrained(
            self.folder, local_files_only=True, use_safetensors=True, **{COMPONENT: None}
        )
        self._pipe.transformer_config = self.config
        self._noising = Noising(self._pipe.scheduler)
        half = self.spec.precision == "bfloat16" and device.type == "cuda"
        for name, part in self._pipe.components.items():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval().to(device)
                if half and name.startswith("text_encoder"):
                    part.to(torch.bfloat16)

    @torch.no_grad()
    def batch(self, rows: Sequence[Row], *, draw: torch.Generator, training: bool) -> Batch:
        """Noisy latents, what is known of them, and the target."""
        assert self._noising is not None, "`to` comes first"
        pixels = torch.stack([row["pixels"] for row in rows]).to(self.device)
        clean = self._latents(pixels, draw)
        noise = torch.randn(clean.shape, generator=draw).to(self.device)
        levels = self._noising.levels(len(rows), draw, spread=not training)
        dropped = torch.rand(len(rows), generator=draw) < (self._dropout if training else 0.0)
        noisy, times, target = self._noising(clean, noise, levels)
        nothing = self.family.nothing(self.config)
        captions = [nothing if drop else row["caption"] for row, drop in zip(rows, dropped.tolist(), strict=True)]
        found = [self._condition(caption) for caption in captions]
        kwargs = {name: torch.cat([one[name] for one in found]).to(self.device) for name in found[0]}
        return Batch(inputs=(noisy,), target=target, kwargs={"timestep": times, **kwargs, **self._sizes(len(rows))})

    def _latents(self, pixels: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        vae = getattr(self._pipe, "vae", None)
        if vae is None:
            return pixels
        spread = vae.encode(pixels).latent_dist
        noise = torch.randn(spread.mean.shape, generator=draw).to(self.device)
        latents = spread.mean + spread.std * noise
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return (latents - shift) * vae.config.scaling_factor  # type: ignore[no-any-return]

    def _condition(self, caption: Any) -> Condition:
        """Encoded alone: the same bits whatever else is in the batch, and whether it was kept or not."""
        known = self._encoded.get(caption)
        if known is not None:
            self._encoded.move_to_end(caption)
            return known
        found = {
            name: value.float() if value.is_floating_point() else value
            for name, value in self.family.condition(self._pipe, caption, self._options).items()
        }
        self._encoded[caption] = found
        self._encoded_bytes += _bytes(found)
        while self._encoded_bytes > CACHED_BYTES and len(self._encoded) > 1:
            self._encoded_bytes -= _bytes(self._encoded.popitem(last=False)[1])
        return found

    def _sizes(self, count: int) -> dict[str, torch.Tensor]:
        """PixArt's micro-conditions, where the model has them."""
        if not self.config.get("use_additional_conditions"):
            return {}
        size = torch.tensor([[float(self._pixels)] * 2] * count, device=self.device)
        return {"added_cond_kwargs.resolution": size, "added_cond_kwargs.aspect_ratio": size[:, :1] / size[:, 1:]}

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Mean squared error; a model that also predicts a variance (twice the channels) is judged by the mean."""
        if output.shape[1] == 2 * target.shape[1]:
            output = output.chunk(2, dim=1)[0]
        return functional.mse_loss(output if output.dtype == torch.float64 else output.float(), target)

    # --- the export ---

    def save_around(self, folder: Path) -> None:
        """The whole pipeline folder but the transformer's weights."""
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            weights = name.parts[0] == COMPONENT and path.name.endswith(_WEIGHTS)
            if path.is_file() and not weights and not any(part.startswith(".") for part in name.parts):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / name)


def _defaults(cls: Any) -> dict[str, Any]:
    """What a class takes for the settings that its config.json leaves out."""
    import inspect

    return {
        name: parameter.default
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}


def _bytes(condition: Condition) -> int:
    return sum(value.numel() * value.element_size() for value in condition.values())


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
