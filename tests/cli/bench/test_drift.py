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
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation import quality

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


def test_stages_are_those_of_the_ranks_and_so_are_their_bounds(subject: Subject) -> None:
    torch.set_num_threads(1)
    texts = ["Guided:budget=6,pipeline=2", "Guided:budget=6,pipeline=2,conditioning=1", "Hybrid:pipeline=2"]
    with pytest.raises(BadConfiguration, match=r"Hybrid:pipeline=2: spec.parallelism"):
        drift(subject, parsed(texts), count=1, batch=1, seed=5, reader=None)  # three blocks, four stages
    _, live, line = drift(subject, parsed(texts[:2]), count=2, batch=2, seed=5, reader=None)
    for row, ranks in ((live, 4), (line, 2)):
        assert row["ranks"] == ranks
        assert 1 < row["bound_over_exact"] < 2, "whole steps cost one branch's forward, whatever the conditioning"
        assert row["psnr_db"] < MOST_DECIBELS
    assert live["psnr_db"] != line["psnr_db"], "both branches staged, or the prompt's alone"


def test_what_the_weights_allow_is_computed_and_the_rest_is_said(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(quality, "learned_metrics", lambda: {"lpips": "no weights", "fid": "too few", "clip": None})
    monkeypatch.setattr(quality, "clip_score_of", lambda picture, prompt: float(len(prompt)))
    exact, _ = drift(subject, parsed(["Guided:budget=inf"]), count=3, batch=3, seed=5, reader=None)
    assert exact["clip_score"] == len("a cat on a mat"), "the median of the prompts' own"
    assert exact["lpips"] is None
    assert exact["not_computed"] == {"lpips": "no weights", "fid": "too few"}


def test_a_setting_of_more_ranks_than_are_timed_is_refused_by_name(subject: Subject) -> None:
    with pytest.raises(BadConfiguration, match="Guided:pipeline=2 takes 4 ranks"):
        speeds(subject, parsed(["Guided:pipeline=2"]), rounds=1, batch=1)


@pytest.mark.slow
def test_speeds_are_ratios_of_one_run_and_carry_their_bounds(subject: Subject) -> None:
    line = "Guided:budget=6,conditioning=1,pipeline=2"
    rows = speeds(subject, parsed([*SETTINGS, line]), rounds=1, batch=1)
    assert [row["mode"] for row in rows] == ["Exact", "Guided", "Guided", "Guided", "Hybrid", "Guided"]
    assert rows[0]["speedup_over_exact"] == 1.0
    assert all(row["speedup_over_one"] > 0 for row in rows)
    reused, window = rows[2], rows[4]
    assert reused["bound_over_exact"] > 1.0
    assert reused["steps_measured"]["reused"] > 0
    assert window["steps_measured"]["staged"] == 4
    assert 0 < window["counted_step"]["staged"] < 1
    assert rows[5]["ranks"] == 2
    assert rows[5]["steps_measured"]["staged"] > 0
    assert rows[5]["bound_over_exact"] > 1.0
