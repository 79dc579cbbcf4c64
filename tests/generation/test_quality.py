"""Distances between pictures, against values computed otherwise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_parts
import torch
import transformers

from frazil_jobs.generation import quality
from frazil_jobs.generation.quality import CLIP, WINDOW, clip_score_of, learned_metrics, psnr, relative_error, ssim


def pictures(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    one = rng.random((17, 23, 3))
    return one, np.clip(one + 0.1 * rng.standard_normal(one.shape), 0, 1)


def test_equal_pictures_have_no_distance() -> None:
    one, _ = pictures()
    assert psnr(one, one) == math.inf
    assert ssim(one, one) == pytest.approx(1.0)
    assert relative_error(one, one) == 0


def test_a_tenth_of_the_range_is_twenty_decibels() -> None:
    one = np.full((20, 20, 3), 0.4)
    assert psnr(one, one + 0.1) == pytest.approx(20.0)
    assert relative_error(one + 0.1, one) == pytest.approx(0.25)


def test_ssim_is_that_of_its_formula_window_by_window() -> None:
    """Written out: the Gaussian weights over each window of 11 × 11 pixels, one channel after the other."""
    one, other = pictures()
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    found = []
    for channel in range(3):
        for row in range(one.shape[0] - WINDOW + 1):
            for column in range(one.shape[1] - WINDOW + 1):
                window = (slice(row, row + WINDOW), slice(column, column + WINDOW), channel)
                x, y = one[window], other[window]
                mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
                variance_x, variance_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
                covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
                c1, c2 = 0.01**2, 0.03**2
                numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
                found.append(numerator / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)))
    assert ssim(one, other) == pytest.approx(float(np.mean(found)), rel=1e-9)


def test_ssim_falls_with_noise_and_sees_structure_that_psnr_does_not() -> None:
    one, other = pictures()
    assert 0 < ssim(one, other) < 1
    brighter = one + np.sqrt(np.mean((one - other) ** 2))
    assert psnr(one, brighter) == pytest.approx(psnr(one, other))
    assert ssim(one, brighter) > ssim(one, other)


def test_pictures_that_the_window_does_not_fit_into_are_refused() -> None:
    with pytest.raises(ValueError, match="window of 11"):
        ssim(np.zeros((10, 20, 3)), np.zeros((10, 20, 3)))


def test_metrics_whose_weights_are_not_here_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert set(learned_metrics()) == {"lpips", "fid", "clip"}
    assert all(reason for reason in learned_metrics().values())


def test_a_clip_score_is_a_hundred_times_the_cosine_where_its_weights_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Against the model's own picture processor, on a random model in the place of the published one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    quality._clip.cache_clear()
    stored = tmp_path / f"models--{CLIP.replace('/', '--')}"
    folder = stored / "snapshots" / "0" / ""
    model = _tiny_clip()
    model.save_pretrained(folder)
    assert learned_metrics()["clip"], "no reference yet, and no tokenizer"
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0")
    assert learned_metrics()["clip"], "no tokenizer yet"
    tiny_parts.clip_tokenizer().save_pretrained(folder)
    assert learned_metrics()["clip"] is None
    assert learned_metrics()["fid"], "always said why not"

    picture = pictures()[0][:16, :22]
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = processor((picture * 255).round().astype(np.uint8), return_tensors="pt")["pixel_values"]
    words = tiny_parts.clip_tokenizer()(["a red ring"], return_tensors="pt")
    with torch.no_grad():
        found = model(**words, pixel_values=pixels)
    cosine = float((found.image_embeds * found.text_embeds).sum())
    assert clip_score_of(picture, "a red ring") == pytest.approx(100 * max(0, cosine), abs=0.5)
    assert clip_score_of(picture, "a red ring") > 1
    quality._clip.cache_clear()


def _tiny_clip() -> Any:
    text = {"vocab_size": 1000, "hidden_size": 16, "intermediate_size": 16, "bos_token_id": 0, "eos_token_id": 514}
    few = {"num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {"hidden_size": 16, "intermediate_size": 16, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config={**text, **few}, vision_config={**vision, **few}, projection_dim=8)
    return tiny_parts.seeded(lambda: transformers.CLIPModel(config), seed=1)
