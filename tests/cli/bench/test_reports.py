"""Tables, joined rows and the drawing of the benches."""

from __future__ import annotations

import xml.etree.ElementTree as Tree
from pathlib import Path
from typing import Any

import pytest

from frazil_cli.bench_modes.drawing import dots_of, frontier
from frazil_cli.bench_modes.drift import tenth
from frazil_cli.bench_modes.reports import drift_report, joined, keeping_report, speed_report

ISSUE_FIELDS = {
    *("mode", "setting", "speedup_over_one", "speedup_over_exact", "bound_over_exact"),
    *("psnr_db", "ssim", "prompt_accuracy"),
}


def speed_row(mode: str, setting: str, over_exact: float, conditioning: int = 2) -> dict[str, Any]:
    return {
        "mode": mode,
        "setting": setting,
        "conditioning": conditioning,
        "ranks": conditioning,
        "step_over_exact": {"whole": 1.0, "reused": 0.39} if mode == "Guided" else {"whole": 1.0},
        "steps_measured": {"whole": 20, "reused": 30} if mode == "Guided" else {"whole": 50},
        "counted_step": {"reused": 0.34, "staged": 0.5} if mode == "Guided" else {},
        "speedup_over_one": 2 * over_exact,
        "speedup_over_exact": over_exact,
        "bound_over_exact": over_exact * 1.05,
        "of_bound": 1 / 1.05,
    }


def drift_row(mode: str, setting: str, decibels: float, conditioning: int = 2) -> dict[str, Any]:
    return {
        "mode": mode,
        "setting": setting,
        "conditioning": conditioning,
        "ranks": conditioning,
        "bound_over_exact": 1.3,
        "psnr_db": decibels,
        "psnr_db_worst_tenth": decibels - 8,
        "psnr_db_least": decibels - 10,
        "ssim": 0.99,
        "ssim_worst_tenth": 0.97,
        "latent_relative_error": 0.01,
        "latent_relative_error_worst_tenth": 0.02,
        "lpips": None,
        "prompt_accuracy": 1.0,
        "pictures": 64,
        "budget_kept": None,
        "all_whole_because": None,
        "not_computed": {"lpips": "lpips is not installed"},
    }


SPEEDS = [speed_row("Exact", "defaults", 1.0), speed_row("Guided", "budget=45", 1.3)]
SPEEDS += [speed_row("Guided", "budget=45,conditioning=1", 0.65, 1)]
DRIFTS = [drift_row("Exact", "defaults", 99.0), drift_row("Guided", "budget=45", 51.0)]
DRIFTS += [drift_row("Guided", "budget=45,conditioning=1", 51.0, 1)]


def test_every_row_has_the_fields_that_were_promised() -> None:
    rows = joined(SPEEDS, DRIFTS)
    assert all(set(row) >= ISSUE_FIELDS for row in rows)
    assert [row["psnr_db"] for row in rows] == [99.0, 51.0, 51.0]


def test_speed_alone_leaves_the_distance_empty() -> None:
    rows = joined(SPEEDS, [])
    assert all(set(row) >= ISSUE_FIELDS for row in rows)
    assert all(row["psnr_db"] is None for row in rows)
    assert "PSNR" not in speed_report(rows, "speeds").markdown()
    assert dots_of(rows, speed="speedup_over_exact") == []


def test_the_tables_of_the_page_are_those_that_are_printed() -> None:
    speed, distance = speed_report(joined(SPEEDS, DRIFTS), "title"), drift_report(DRIFTS, "title")
    assert speed.table().row_count == distance.table().row_count == 3
    assert distance.markdown().splitlines() == [
        "| mode | setting | bound over exact | PSNR, median | nine in ten above | SSIM | latent error | read right "
        "| in budget |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| Exact | – | 1.30x | – | – | – | – | 100% | – |",
        "| Guided | `budget=45` | 1.30x | 51.0 dB | 43.0 dB | 0.9900 | 0.0100 | 100% | – |",
        "| Guided, one rank | `budget=45,conditioning=1` | 1.30x | 51.0 dB | 43.0 dB | 0.9900 | 0.0100 | 100% | – |",
    ]
    assert speed.markdown().splitlines()[3] == (
        "| Guided | `budget=45` | 2.60x | 1.30x | 1.37x | 0.95 | 0.39 (reusing, 30 steps) | 0.34 | 51.0 dB | 43.0 dB |"
    )


@pytest.mark.parametrize(("kind", "head"), [("quality", "bound over exact"), ("budget", "error/allowed")])
def test_the_page_has_the_columns_that_are_printed(kind: str, head: str) -> None:
    """The heads of the tables of docs/modes.md are a command's output."""
    report = {"quality": drift_report, "budget": keeping_report}[kind]([], "")
    heads = report.markdown().splitlines()[0]
    page = (Path(__file__).parents[3] / "docs" / "modes.md").read_text()
    assert head in heads
    assert heads in page


def test_what_its_weights_allow_has_a_column() -> None:
    rows = [row | {"clip_score": 25.5} for row in DRIFTS]
    assert "CLIP score" in drift_report(rows, "").markdown()
    assert "CLIP score" not in drift_report(DRIFTS, "").markdown()


def test_the_drawing_is_svg_with_a_dot_a_setting_and_names_its_lines() -> None:
    dots = dots_of(joined(SPEEDS, DRIFTS), speed="speedup_over_exact")
    assert [dot.group for dot in dots] == ["Guided", "Guided, one rank"]
    drawing = frontier(dots, title="64 pictures & more", speed_title="speed")
    root = Tree.fromstring(drawing)
    name = "{http://www.w3.org/2000/svg}"
    dots_drawn = [circle for group in root.iter(f"{name}g") for circle in group.iter(f"{name}circle")]
    assert len(dots_drawn) == len(dots)
    texts = [text.text for text in root.iter(f"{name}text")]
    assert {"Guided", "Guided, one rank", "64 pictures & more", "speed"} <= set(texts)


def test_faster_is_further_right_and_nearer_is_higher_up() -> None:
    drifts = [DRIFTS[0], drift_row("Guided", "budget=45", 30.0), DRIFTS[2]]
    dots = dots_of(joined(SPEEDS, drifts), speed="speedup_over_exact")
    root = Tree.fromstring(frontier(dots, title="", speed_title=""))
    name = "{http://www.w3.org/2000/svg}"
    circles = [circle for group in root.iter(f"{name}g") for circle in group.iter(f"{name}circle")]
    fast, slow = ((float(circle.attrib["cx"]), float(circle.attrib["cy"])) for circle in circles)
    assert fast[0] > slow[0]
    assert fast[1] > slow[1], "30 dB lies below 51 dB"


def test_a_frontier_of_one_setting_can_be_drawn() -> None:
    dots = dots_of(joined(SPEEDS[:2], DRIFTS), speed="speedup_over_exact")
    Tree.fromstring(frontier(dots, title="one", speed_title="speed"))


@pytest.mark.parametrize(("count", "expected"), [(10, 0), (20, 1), (64, 6), (2, 0)])
def test_the_worst_tenth_is_what_nine_in_ten_reach(count: int, expected: int) -> None:
    values = [float(value) for value in range(count)]
    assert tenth(values) == expected
    assert sum(value >= tenth(values) for value in values) >= 0.9 * count
    assert tenth(values, highest=True) == count - 1 - expected
