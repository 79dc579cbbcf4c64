"""Small model folders with real safetensors in diffusers' layout, made without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

COMPONENTS = {
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def weights(path: Path, *, seed: int = 0, size: int = 64) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.random.default_rng(seed).normal(size=size).astype(np.float32)}, path)
    return path


def write_model(folder: Path, *, seed: int = 0, size: int = 64) -> Path:
    """A folder that passes the checks. The numbers in it are noise: nothing here runs it."""
    for name in COMPONENTS:
        (folder / name).mkdir(parents=True)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index | COMPONENTS))
    (folder / "scheduler" / "scheduler_config.json").write_text("{}")
    (folder / "tokenizer" / "tokenizer_config.json").write_text("{}")
    (folder / "tokenizer" / "vocab.json").write_text('{"a": 0}')
    for name, file in (
        ("text_encoder", "model.safetensors"),
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("vae", "diffusion_pytorch_model.safetensors"),
    ):
        (folder / name / "config.json").write_text("{}")
        weights(folder / name / file, seed=seed, size=size)
    return folder


@pytest.fixture
def make_model() -> Callable[..., Path]:
    return write_model


@pytest.fixture
def make_weights() -> Callable[..., Path]:
    return weights


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")
