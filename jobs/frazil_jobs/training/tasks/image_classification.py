"""ImageClassification: the class of a picture, with ViT of transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.training.cutting import Cut
from frazil_jobs.training.data.pictures import Picture
from frazil_jobs.training.planning.estimate import Shape, shape_of
from frazil_jobs.training.tasks import library
from frazil_jobs.training.tasks.base import Batch, Row, Task, options

CLASSES: Final = ("ViTForImageClassification",)
_PROCESSOR: Final = "preprocessor_config.json"

_CUT: Final = Cut(
    primary="pixel_values",
    blocks="vit.layers",
    entries={"vit.embeddings": 1},
    heads=("vit.layernorm", "classifier"),
    reads={"vit.embeddings": "patch_embeddings.projection.weight"},
)


class ImageClassification(Task):
    """Cross-entropy of a ViT's classes."""

    cut = _CUT

    def __init__(self, job: TrainingJob, folder: Path) -> None:
        super().__init__(job, folder)
        chosen = options(job, {"labelSmoothing": 0.0})
        self._smoothing = float(chosen["labelSmoothing"])
        self.config, self._class = library.config_of(folder, job, CLASSES)
        self.blocks = int(self.config.num_hidden_layers)
        self.classes = int(self.config.num_labels)
        size = self.config.image_size
        wanted = job.spec.dataset.image_size
        if wanted is not None and wanted != size:
            raise BadConfiguration(
                f"the model's positions are for pictures of {size} pixels, not {wanted}",
                field="spec.dataset.imageSize",
                remedy="leave it out",
            )
        mean, deviation = self._normalisation()
        self.picture = Picture(size=size, channels=int(self.config.num_channels), mean=mean, deviation=deviation)

    def _normalisation(self) -> tuple[list[float], list[float]]:
        channels = int(self.config.num_channels)
        if (self.folder / _PROCESSOR).is_file():
            values = json.loads((self.folder / _PROCESSOR).read_text())
            if values.get("image_mean") and values.get("image_std"):
                return list(values["image_mean"]), list(values["image_std"])
        return [0.5] * channels, [0.5] * channels

    def model(self) -> nn.Module:
        """The whole model."""
        return library.library_model(self.folder, self.job, self._class, self.config)

    def shape(self) -> Shape:
        """Counted from its configuration."""
        return shape_of(self.spec.task, self.config.to_dict())

    def sample(self) -> torch.Tensor:
        """Pixels (channels, height, width)."""
        return torch.zeros(self.picture.channels, self.picture.size, self.picture.size)

    def check_labels(self, lowest: int, highest: int) -> None:
        """Raise BadInput unless the labels of the data set are classes of the model."""
        if lowest < 0 or highest >= self.classes:
            raise BadInput(
                f"labels go from {lowest} to {highest}, and the model has classes 0 to {self.classes - 1}",
                field="spec.dataset.columns.label",
                remedy=f"set num_labels of the model's config to {highest + 1}, or name another column",
            )

    def batch(self, rows: Sequence[Row], *, draw: torch.Generator, training: bool) -> Batch:
        """Pixels and class numbers."""
        pixels = torch.stack([row["pixels"] for row in rows]).to(self.device)
        labels = torch.tensor([int(row["label"]) for row in rows], dtype=torch.int64, device=self.device)
        return Batch(inputs=(pixels,), target=labels)

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of logits (batch, classes)."""
        logits = output if output.dtype == torch.float64 else output.float()
        return functional.cross_entropy(logits, target, label_smoothing=self._smoothing)

    def accuracy(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Share of pictures whose class is told right."""
        right: torch.Tensor = (output.argmax(-1) == target).double()
        return right.mean()

    def save_around(self, folder: Path) -> None:
        """Configuration, and how pictures are prepared."""
        config = self.config.__class__.from_dict(self.config.to_dict())
        config.architectures = [self._class]
        config.dtype = "float32"
        config.save_pretrained(folder)
        size = {"height": self.picture.size, "width": self.picture.size}
        processor = {
            "image_processor_type": "ViTImageProcessor",
            "do_resize": True,
            "size": size,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.picture.mean),
            "image_std": list(self.picture.deviation),
        }
        (folder / _PROCESSOR).write_text(json.dumps(processor, indent=2))
