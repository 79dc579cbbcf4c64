"""Distances between pictures, against values computed otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from frazil_jobs.generation.quality import WINDOW, learned_metrics, psnr, relative_error, ssim


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


def test_metrics_whose_weights_are_not_here_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert set(learned_metrics()) == {"lpips", "fid", "clip"}
    assert all(reason for reason in learned_metrics().values())
