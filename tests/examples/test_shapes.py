"""The small model of examples/shapes: its pictures, the reader that judges it, and the model itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "shapes"
sys.path.insert(0, str(FOLDER))

import draw  # noqa: E402
import evaluate  # noqa: E402
import read  # noqa: E402


def pictures(count: int, seed: int) -> tuple[list[draw.Scene], np.ndarray]:
    rng = np.random.default_rng(seed)
    scenes = [draw.ALL[index] for index in rng.integers(len(draw.ALL), size=count)]
    return scenes, np.stack([draw.draw(scene, rng) for scene in scenes])


def test_drawing_is_a_function_of_the_seed() -> None:
    assert np.array_equal(pictures(20, 5)[1], pictures(20, 5)[1])
    assert not np.array_equal(pictures(20, 5)[1], pictures(20, 6)[1])


def test_one_combination_in_ten_is_kept_out_of_the_training() -> None:
    assert len(draw.ALL) == 8 * 5 * 2 * 5
    assert len(draw.HELD_OUT) * 10 == len(draw.ALL)
    assert set(draw.TRAINING).isdisjoint(draw.HELD_OUT)
    for name in ("size", "colour", "shape", "place"):
        known = {getattr(scene, name) for scene in draw.TRAINING}
        assert known == {getattr(scene, name) for scene in draw.ALL}, "every single attribute is seen in training"


def test_the_training_draws_no_combination_that_is_kept_out() -> None:
    import train

    scenes, pixels = train.drawn(300, seed=1)
    assert draw.HELD_OUT.isdisjoint(scenes)
    assert pixels.shape == (300, 3, 64, 64)
    assert float(pixels.min()) >= -1
    assert float(pixels.max()) <= 1


def test_the_reader_is_right_on_fresh_drawings() -> None:
    scenes, drawn = pictures(600, 11)
    assert evaluate.score(scenes, drawn)["all four"] >= 0.99


def test_the_reader_is_at_chance_for_prompts_that_do_not_belong_to_the_picture() -> None:
    _, drawn = pictures(600, 12)
    others, _ = pictures(600, 13)
    figures = evaluate.score(others, drawn)
    for name, chance in (("colour", 1 / 8), ("shape", 1 / 5), ("size", 1 / 2), ("place", 1 / 5)):
        assert abs(figures[name] - chance) < 0.09, (name, figures[name])
    assert figures["all four"] < 0.02


@pytest.mark.parametrize("picture", [np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 240, np.uint8)])
def test_the_reader_sees_nothing_on_an_empty_picture(picture: np.ndarray) -> None:
    assert read.read(picture) == read.NOTHING


MODELS = {"model": "evaluation.json", "unet": "unet-evaluation.json"}


@pytest.mark.parametrize(("model", "record"), MODELS.items())
def test_the_weights_are_small_and_those_that_were_evaluated(model: str, record: str) -> None:
    files = list((FOLDER / model).rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 5_000_000
    evaluation = json.loads((FOLDER / record).read_text())
    assert evaluation["weights"] == evaluate.weights_sha256(FOLDER / model)


@pytest.mark.parametrize("record", MODELS.values())
def test_the_evaluation_on_record_is_what_the_readme_promises(record: str) -> None:
    figures = json.loads((FOLDER / record).read_text())["figures"]["with guidance"]
    assert figures["count"] >= 200
    assert all(figures[name] >= 0.95 for name in ("colour", "size", "place"))
    assert figures["all four"] >= 0.85


def test_the_captions_are_one_token_a_word_for_the_unet() -> None:
    import train_unet

    words = train_unet.tokenizer()
    assert all(len(words(scene.prompt).input_ids) == len(scene.prompt.split()) + 2 for scene in draw.ALL)


@pytest.mark.parametrize("model", MODELS)
def test_the_model_draws_what_it_is_asked_for(model: str) -> None:
    scenes = evaluate.chosen(draw.ALL, 24, seed=77)
    generated = evaluate.generate(evaluate.load(FOLDER / model), scenes, steps=15, guidance=4.0, seed=5)
    assert evaluate.score(scenes, generated)["all four"] >= 0.75
