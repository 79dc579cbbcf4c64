"""The published switch as pure functions, on curves whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from frazil_jobs.api.parallelism import Switching
from frazil_jobs.generation.modes.hybrid import discrepancies
from frazil_jobs.generation.switching import Window, WindowRule, closes, joined, levels_off, opens, slope

PAPER = WindowRule(steps=50, length=5, slope_steps=12, threshold=0.4e-3, cap=15)
"""SDXL: k = 5, L = 12, g = 0.0004, cap 15 of 50 steps."""

FLAT = [0.3] * 50
FALLING = [1.0 - 0.01 * step for step in range(50)]
U = [0.01 * (step - 13) ** 2 / 10 + 0.2 for step in range(50)]
RISING = [0.1 + 0.01 * step for step in range(50)]
LEVELS_AT_20 = [max(0.2, 0.6 - 0.02 * step) for step in range(50)]


def first(curve: list[float], rule: WindowRule = PAPER) -> int | None:
    """The window's first step when the curve is seen step by step."""
    for seen in range(1, len(curve) + 1):
        found = opens(curve[:seen], rule)
        if found is not None:
            return found
    return None


def test_the_discrepancy_of_each_image_computed_by_hand() -> None:
    prompt = torch.tensor([[[3.0, -1.0]], [[0.0, 2.0]]])
    other = torch.tensor([[[1.0, -2.0]], [[4.0, 4.0]]])
    # |2| + |1| over |1| + |2|, and |4| + |2| over |4| + |4|; the other way round 3 / 4 and 6 / 2.
    assert discrepancies(torch.stack([other, prompt]), conditional=1) == pytest.approx([1.0, 0.75])
    assert discrepancies(torch.stack([prompt, other]), conditional=0) == pytest.approx([1.0, 0.75])
    assert discrepancies(torch.stack([other, prompt]), conditional=0) == pytest.approx([0.75, 3.0])


def test_the_defaults_are_the_papers_numbers_for_sdxl_at_50_steps() -> None:
    assert WindowRule.of(Switching(), steps=50) == PAPER


def test_the_papers_numbers_for_sd3_are_what_the_field_says() -> None:
    sd3 = Switching(slope_window_percent=30, slope_threshold="0.005", cap_percent=80)
    assert WindowRule.of(sd3, steps=50) == WindowRule(
        steps=50, length=5, slope_steps=15, threshold=pytest.approx(1e-4), cap=40
    )


@pytest.mark.parametrize(
    ("case", "curve", "expected"),
    [
        ("flat: its slope is 0 as soon as there is one", FLAT, 13),
        ("falling fast: only the cap opens it", FALLING, 15),
        ("rising: only the cap opens it", RISING, 15),
        ("no numbers: only the cap opens it", [math.nan] * 50, 15),
        ("constant 0", [0.0] * 50, 13),
        ("shorter than L and than the cap: not yet", FLAT[:12], None),
        ("exactly L + 1 values", FLAT[:13], 13),
        ("a U whose sides are equally high over L steps", [abs(step - 6) * 0.1 for step in range(50)], 13),
        ("a U that still falls at the cap", U, 15),
    ],
)
def test_where_the_window_opens(case: str, curve: list[float], expected: int | None) -> None:
    assert first(curve) == expected, case


def test_a_late_cap_lets_the_slope_decide() -> None:
    rule = WindowRule(steps=50, length=5, slope_steps=10, threshold=0.001, cap=40)
    # Over ten steps back the fall is (M[s-10] - 0.2) / 10: below 0.001 from M[s-10] < 0.21, that is step 30.
    assert levels_off(LEVELS_AT_20, rule) == 30
    assert first(LEVELS_AT_20, rule) == 31


def test_a_threshold_of_zero_leaves_the_place_to_the_cap() -> None:
    for steps in (10, 25, 50, 100):
        for cap in range(100 // steps + 10, 90, 10):
            rule = WindowRule.of(Switching(slope_threshold="0", cap_percent=cap, slope_window_percent=20), steps=steps)
            assert first([0.3] * steps, rule) == max(1, cap * steps // 100)


def test_the_slope_spans_as_many_steps_as_it_is_divided_by() -> None:
    assert slope(FALLING, 20, 12) == pytest.approx(0.01)
    assert math.isnan(slope(FALLING, 11, 12))
    assert math.isnan(slope(FALLING[:12], 12, 12))


@pytest.mark.parametrize(
    ("switching", "steps", "words"),
    [
        (Switching(), 9, "10 % of 9 steps is less than one step"),
        (Switching(slope_window_percent=10), 19, "10 % of 19 steps is less than the 2 that a slope needs"),
    ],
)
def test_too_few_steps_are_refused_in_words(switching: Switching, steps: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WindowRule.of(switching, steps=steps)


def test_a_batch_follows_the_image_that_is_ready_last() -> None:
    assert joined([13, 15, 14]) == 15
    assert joined([13, None]) is None
    window = Window(PAPER)
    for flat, falling in zip(FLAT, FALLING, strict=True):
        window.observe([flat, falling])
    assert window.first == 15
    alone = Window(PAPER)
    for value in FLAT:
        alone.observe([value])
    assert alone.first == 13


curves = some.lists(some.floats(0, 2) | some.just(math.nan), min_size=50, max_size=50)


@given(some.lists(curves, min_size=1, max_size=3), some.integers(10, 50))
def test_every_curve_gives_one_window_inside_of_the_steps_and_no_later_than_the_cap(
    images: list[list[float]], steps: int
) -> None:
    rule = WindowRule.of(Switching(), steps=steps)
    window = Window(rule)
    staged = []
    for step in range(steps):
        if window.holds(step):
            staged.append(step)
        else:
            window.observe([curve[step] for curve in images])
    assert window.first is not None
    assert 1 <= window.first <= rule.cap
    assert staged == list(range(window.first, closes(window.first, rule)))
    assert len(staged) == rule.length
