"""The benches that time two ranks, from end to end, on work too small for its figures to say anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="they give each of two ranks a core")


def bench(*arguments: str) -> Any:
    command = [sys.executable, "-m", "frazil_cli.main", "bench", *arguments, "--rounds", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_bench_exact_says_speed_bound_bytes_and_distance() -> None:
    found = bench("exact", "--steps", "2", "--width", "64", "--layers", "1", "--batch", "3")
    assert found["ratio_to_bound"] == pytest.approx(found["speedup"] / found["bound"])
    assert found["speedup_end_to_end"] > 0
    assert found["batch2_over_batch1"] > 0
    assert (found["collectives_per_step"], found["bytes_per_step"]) == (1, 3 * 4 * 32 * 32 * 4)
    assert 0 <= found["max_relative_difference"] <= 1e-5


@pytest.mark.slow
def test_bench_modes_has_a_row_a_setting() -> None:
    settings = ("Guided:budget=30", "Hybrid:windowPercent=20")
    options = [part for setting in settings for part in ("--setting", setting)]
    rows = bench("modes", *options, "--batch", "1", "--count", "2", "--steps", "10")
    assert [(row["mode"], row["conditioning"]) for row in rows][:2] == [("Exact", 2), ("Guided", 2)]
    for row in rows:
        assert row["speedup_over_one"] > 0
        assert row["of_bound"] == pytest.approx(row["speedup_over_exact"] / row["bound_over_exact"])
        assert row["prompt_accuracy"] is None or 0 <= row["prompt_accuracy"] <= 1
