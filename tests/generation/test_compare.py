"""Which prompts are made exactly as well, and how far is far."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from frazil_jobs.generation.compare import compared_prompts, psnr


@given(some.integers(1, 1000), some.integers(0, 64))
def test_as_many_prompts_are_compared_as_asked_or_all_there_are(count: int, wanted: int) -> None:
    found = compared_prompts(count, wanted=wanted)
    assert len(found) == min(count, wanted)
    assert all(0 <= index < count for index in found)
    assert not found or 0 in found


def test_they_are_spread_over_the_job() -> None:
    assert compared_prompts(100, wanted=4) == {0, 25, 50, 75}


def test_psnr_is_the_textbooks() -> None:
    black = np.zeros((4, 4, 3), np.float32)
    assert psnr(black, black) == math.inf
    assert psnr(black, black + 0.1) == pytest.approx(20)
    assert psnr(black, black + 0.1, sound=True) == pytest.approx(20 + 20 * math.log10(2))
