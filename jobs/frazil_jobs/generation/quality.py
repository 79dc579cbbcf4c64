"""How far pictures are from others: PSNR, SSIM and relative error; LPIPS and CLIP scores where their weights are.

The other pictures are those of mode Exact from the same seeds: distance to the original, which is what an engine answers
for, and not to some ground truth, which hides damage.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frazil_jobs.generation.compare import psnr

__all__ = ["clip_score_of", "learned_metrics", "lpips_of", "psnr", "relative_error", "ssim"]

WINDOW: Final = 11
SIGMA: Final = 1.5
"""SSIM's Gaussian window, in pixels (Wang, Bovik, Sheikh & Simoncelli 2004)."""
_K1: Final = 0.01
_K2: Final = 0.03
Floats = NDArray[np.float64]


def ssim(one: NDArray[Any], other: NDArray[Any], *, peak: float = 1.0) -> float:
    """Structural similarity of two pictures (height, width, channels) in [0, peak], averaged over channels: 1 is equal.

    Wang et al. 2004 with their constants: a Gaussian window of 11 pixels, only where it fits into the picture. Raises
    ValueError for pictures that are smaller than the window, or of two sizes.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if first.shape != second.shape or min(first.shape[:2]) < WINDOW:
        raise ValueError(
            f"pictures of {first.shape} and {second.shape} can't be compared by a window of {WINDOW} pixels"
        )
    mean_1, mean_2 = _windowed(first), _windowed(second)
    variance_1 = _windowed(first * first) - mean_1 * mean_1
    variance_2 = _windowed(second * second) - mean_2 * mean_2
    covariance = _windowed(first * second) - mean_1 * mean_2
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    similarity = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    similarity /= (mean_1**2 + mean_2**2 + c1) * (variance_1 + variance_2 + c2)
    return float(similarity.mean())


def _windowed(values: Floats) -> Floats:
    """The Gaussian mean around each pixel, along both sides in turn."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    for axis in (0, 1):
        values = np.lib.stride_tricks.sliding_window_view(values, WINDOW, axis=axis) @ weights
    return values


def relative_error(one: NDArray[Any], other: NDArray[Any]) -> float:
    """‖one − other‖ / ‖other‖ over all numbers: of latents, where no decoder blurs it."""
    difference = np.linalg.norm(np.asarray(one, np.float64) - np.asarray(other, np.float64))
    return float(difference / np.linalg.norm(np.asarray(other, np.float64)))


LPIPS_WEIGHTS: Final = "alexnet-owt-*.pth"
"""In torch hub's folder of checkpoints."""
CLIP: Final = "openai/clip-vit-large-patch14"
"""The model of CLIP scores, in Hugging Face's cache: the one that they are usually computed with."""
_CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)
NO_FID: Final = "it compares thousands of pictures as a set, and here each is compared with its own exact one"


def learned_metrics() -> dict[str, str | None]:
    """Of each metric that needs trained weights: why it isn't computed here, or None when it can be."""
    return {"lpips": _why_no_lpips(), "fid": NO_FID, "clip": _why_no_clip()}


def _why_no_lpips() -> str | None:
    if importlib.util.find_spec("lpips") is None:
        return "lpips is not installed"
    home = Path(os.environ.get("TORCH_HOME", Path.home() / ".cache" / "torch"))
    if any((home / "hub" / "checkpoints").glob(LPIPS_WEIGHTS)):
        return None
    return f"its weights ({LPIPS_WEIGHTS}) are not in hub/checkpoints of TORCH_HOME"


def _why_no_clip() -> str | None:
    if _clip_folder() is None:
        return f"its weights ({CLIP}) are not in the cache of Hugging Face's hub"
    return None


def _clip_folder() -> Path | None:
    """Where CLIP lies, all of it: nothing is fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(CLIP, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    whole = (folder / "config.json").exists() and any(folder.glob("*.safetensors"))
    return folder if whole and any(folder.glob("tokenizer*.json")) else None


def lpips_of(one: NDArray[Any], other: NDArray[Any]) -> float:
    """LPIPS (Zhang et al. 2018, AlexNet) of two pictures (height, width, 3) in [0, 1]. Needs its weights here."""
    import torch

    pair = [torch.from_numpy(np.asarray(side, np.float32)).permute(2, 0, 1)[None] * 2 - 1 for side in (one, other)]
    with torch.no_grad():
        return float(_lpips()(*pair))


@functools.cache
def _lpips() -> Any:
    return importlib.import_module("lpips").LPIPS(net="alex", verbose=False).eval()


def clip_score_of(picture: NDArray[Any], prompt: str) -> float:
    """The CLIP score (Hessel et al. 2021) of a picture (height, width, 3) in [0, 1]: 100 times its cosine to the prompt,
    at least 0. Needs its weights here."""
    import torch

    model, tokenizer = _clip()
    side = model.config.vision_config.image_size
    pixels = torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)[None].clamp(0, 1)
    height, width = pixels.shape[-2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    pixels = torch.nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    pixels = pixels[:, :, top : top + side, left : left + side].clamp(0, 1)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (_CLIP_MEAN, _CLIP_DEVIATION))
    words = tokenizer([prompt], truncation=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**words, pixel_values=(pixels - mean) / deviation)
    return 100 * max(0.0, float((found.image_embeds * found.text_embeds).sum()))


@functools.cache
def _clip() -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPTokenizer

    folder = _clip_folder()
    assert folder is not None
    load: Any = CLIPModel.from_pretrained
    return load(folder, local_files_only=True).eval(), CLIPTokenizer.from_pretrained(folder, local_files_only=True)
