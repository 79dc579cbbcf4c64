"""How far pictures are from others: PSNR, SSIM and relative error; LPIPS, FID and CLIP where their weights are.

The other pictures are those of mode Exact from the same seeds: distance to the original, which is what an engine answers
for, and not to some ground truth, which hides damage.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from frazil_jobs.generation.compare import psnr

__all__ = ["learned_metrics", "lpips_of", "psnr", "relative_error", "ssim"]

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


LEARNED: Final[Mapping[str, tuple[str, str]]] = {
    "lpips": ("lpips", "alexnet-owt-*.pth"),
    "fid": ("torchmetrics", "weights-inception-2015-12-05-*.pth"),
    "clip": ("open_clip", "open_clip*"),
}
"""Metric to the package that computes it and the weights that it needs, in torch hub's folder of checkpoints."""


def learned_metrics() -> dict[str, str | None]:
    """Of each metric that needs trained weights: why it can't be computed here, or None when it can."""
    home = Path(os.environ.get("TORCH_HOME", Path.home() / ".cache" / "torch"))
    checkpoints = home / "hub" / "checkpoints"
    found: dict[str, str | None] = {}
    for name, (package, weights) in LEARNED.items():
        if importlib.util.find_spec(package) is None:
            found[name] = f"{package} is not installed"
        elif not any(checkpoints.glob(weights)):
            found[name] = (
                f"its weights ({weights}) are not in {checkpoints.parent.name}/{checkpoints.name} of TORCH_HOME"
            )
        else:
            found[name] = None
    return found


def lpips_of(one: NDArray[Any], other: NDArray[Any]) -> float:
    """LPIPS (Zhang et al. 2018, AlexNet) of two pictures (height, width, 3) in [0, 1]. Needs its weights here."""
    import torch

    pair = [torch.from_numpy(np.asarray(side, np.float32)).permute(2, 0, 1)[None] * 2 - 1 for side in (one, other)]
    with torch.no_grad():
        return float(_lpips()(*pair))


@functools.cache
def _lpips() -> Any:
    return importlib.import_module("lpips").LPIPS(net="alex", verbose=False).eval()
