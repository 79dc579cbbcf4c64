"""The first stage's backward, counted pass by pass, against the models of it that plans are made with.

It gives no dX to anyone, so a block's dX is computed only where something further front is trained.
"""

from __future__ import annotations

import numpy as np
import pytest

from frazil_jobs.training.planning.actions import Action, Kind
from frazil_jobs.training.planning.comparison import as_drawn
from frazil_jobs.training.planning.models import BlockTime, Cut, ModelTime
from frazil_jobs.training.planning.schedules import order_of

BLOCKS, TENSORS = 8, 9
MODEL = ModelTime(blocks=(BlockTime(forward=1.0, backward_input=0.9, backward_weight=1.1),) * 2 * BLOCKS)
ORDER = order_of("1F1B", ranks=2, microbatches=2)
TIMINGS = MODEL.timings(Cut((0, BLOCKS, 2 * BLOCKS)), ORDER)
FIRST = Action(Kind.B, 0, 0)


def backward(trained: np.ndarray) -> float:
    """Seconds, of which tensors are trained: shape (BLOCKS, TENSORS), the frontmost block first."""
    block = MODEL.blocks[0]
    weights = trained.mean(axis=1).sum() * block.backward_weight
    needed = sum(trained[:at].any() for at in range(1, BLOCKS))
    return float(weights + needed * block.backward_input)


def test_nothing_and_everything_frozen_take_what_the_timings_say() -> None:
    assert backward(np.ones((BLOCKS, TENSORS), bool)) == pytest.approx(TIMINGS.actions[FIRST].full)
    assert backward(np.zeros((BLOCKS, TENSORS), bool)) == TIMINGS.actions[FIRST].frozen == 0


@pytest.mark.parametrize("frozen", range(BLOCKS + 1))
def test_whole_blocks_frozen_from_the_front_take_what_the_linear_model_says_or_a_little_less(frozen: int) -> None:
    trained = np.ones((BLOCKS, TENSORS), bool)
    trained[:frozen] = False
    planned = TIMINGS.actions[FIRST].at(frozen / BLOCKS)
    assert planned - MODEL.blocks[0].backward_input <= backward(trained) <= planned + 1e-12


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_tensors_drawn_at_random_save_their_dw_only_which_is_half_of_what_the_linear_model_says(ratio: float) -> None:
    generator = np.random.default_rng(0)
    number = round(ratio * BLOCKS * TENSORS)
    seconds = []
    for _ in range(200):
        trained = np.ones(BLOCKS * TENSORS, bool)
        trained[generator.choice(BLOCKS * TENSORS, number, replace=False)] = False
        seconds.append(backward(trained.reshape(BLOCKS, TENSORS)))
    drawn = as_drawn(TIMINGS, MODEL, BLOCKS * TENSORS).actions[FIRST]
    assert np.mean(seconds) == pytest.approx(drawn.at(ratio), rel=0.05)
    full = TIMINGS.actions[FIRST].full
    assert full - np.mean(seconds) < 0.65 * (full - TIMINGS.actions[FIRST].at(ratio))
