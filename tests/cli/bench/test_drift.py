"""`frazil bench quality` and `frazil bench modes` on a tiny pipeline: rows that mean what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_pipelines
import torch

from frazil_cli.bench_modes.drift import MOST_DECIBELS, drift
from frazil_cli.bench_modes.settings import parsed
from frazil_cli.bench_modes.speed import speeds
from frazil_cli.bench_modes.subject import Subject

SETTINGS = (
    *("Exact", "Guided:budget=inf", "Guided:budget=20,predictorOrder=0,refreshEvery=4"),
    *("Guided:budget=20,predictorOrder=0,refreshEvery=4,conditioning=1", "Hybrid:windowPercent=40"),
)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder: Path = tiny_pipelines.save("pixart", tmp_path_factory.mktemp("models") / "pixart")
    prompts = ("a cat on a mat", "two dogs", "a small red house by the sea")
    return Subject(model=str(folder), steps=10, guidance_scale=4.0, prompts=prompts, size=16)


def test_distances_are_of_pictures_from_the_same_seeds(subject: Subject) -> None:
    torch.set_num_threads(1)
    rows = drift(subject, parsed(SETTINGS), count=3, batch=2, seed=5, reader=lambda prompt, _: "dog" in prompt)
    exact, nothing, reused, alone, window = rows
    assert exact["psnr_db"] == MOST_DECIBELS
    assert nothing["psnr_db"] == MOST_DECIBELS, "a budget of no drift is Exact, bit for bit"
    assert nothing["bound_over_exact"] == 1.0
    assert reused["psnr_db"] < MOST_DECIBELS
    assert reused["bound_over_exact"] > 1.0
    assert alone["bound_over_exact"] == pytest.approx(reused["bound_over_exact"] / 2, rel=0.2)
    assert window["psnr_db"] < MOST_DECIBELS
    assert window["ssim"] < 1.0 < window["bound_over_exact"]
    assert all(row["prompt_accuracy"] == pytest.approx(1 / 3) for row in rows)
    assert all(row["psnr_db_least"] <= row["psnr_db_worst_tenth"] <= row["psnr_db"] for row in rows)


@pytest.mark.slow
def test_speeds_are_ratios_of_one_run_and_carry_their_bounds(subject: Subject) -> None:
    rows = speeds(subject, parsed(SETTINGS), rounds=1, batch=1)
    assert [row["mode"] for row in rows] == ["Exact", "Guided", "Guided", "Guided", "Hybrid"]
    assert rows[0]["speedup_over_exact"] == 1.0
    assert all(row["speedup_over_one"] > 0 for row in rows)
    reused, window = rows[2], rows[4]
    assert reused["bound_over_exact"] > 1.0
    assert reused["steps_measured"]["reused"] > 0
    assert window["steps_measured"]["staged"] == 4
    assert 0 < window["counted_step"]["staged"] < 1
