"""`frazil bench budget`: what counts as kept, and that its rows are those of `frazil bench quality` picture by picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_pipelines
import torch

from frazil_cli.bench import _subject
from frazil_cli.bench_modes.drift import drift
from frazil_cli.bench_modes.keeping import keeping, share_kept
from frazil_cli.bench_modes.settings import parsed
from frazil_cli.bench_modes.strip import MAGNIFIED, strip
from frazil_cli.bench_modes.subject import Subject, shapes_prompts, tuning_prompts
from frazil_jobs.base.exits import BadConfiguration

SWITCHING = "budget=12,predictorOrder=0,refreshEvery=4"


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder: Path = tiny_pipelines.save("pixart", tmp_path_factory.mktemp("models") / "pixart")
    return Subject(model=str(folder), steps=8, guidance_scale=4.0, prompts=("a cat on a mat", "two dogs"), size=16)


def test_nineteen_pictures_of_twenty_are_what_is_promised() -> None:
    exact = [np.zeros((2, 2, 3))] * 20
    found = share_kept(40.0, [np.full((2, 2, 3), 0.01)] * 19 + [np.full((2, 2, 3), 0.1)], exact)
    assert found["kept"] == 0.95
    assert found["psnr_db_promised"] == pytest.approx(40.0)
    assert found["error_over_allowed"] == pytest.approx(1.0)
    worse = share_kept(40.0, [np.full((2, 2, 3), 0.01)] * 18 + [np.full((2, 2, 3), 0.1)] * 2, exact)
    assert worse["error_over_allowed"] == pytest.approx(10.0)


def test_each_picture_is_a_call_of_its_own(subject: Subject) -> None:
    torch.set_num_threads(1)
    (found,) = keeping(subject, None, [SWITCHING], count=3, seed=5)
    _, expected = drift(subject, parsed([f"Guided:{SWITCHING}"]), count=3, batch=1, seed=5, reader=None)
    assert found["kept"] == expected["budget_kept"]
    assert found["psnr_db"] == expected["psnr_db"]
    assert found["bound_over_exact"] == expected["bound_over_exact"] > 1


def test_stages_can_keep_a_budget_too(subject: Subject) -> None:
    torch.set_num_threads(1)
    (found,) = keeping(subject, None, ["budget=6,pipeline=2"], count=1, seed=5)
    assert found["ranks"] == 4
    assert 1 < found["bound_over_exact"] < 2


def test_no_prompt_that_tuning_drew_is_asked_for() -> None:
    shapes = Path(__file__).parents[3] / "examples" / "shapes"
    tuned = tuning_prompts(shapes)
    assert tuned >= {*shapes_prompts(shapes, 8, 0), *shapes_prompts(shapes, 8, 100)}
    assert tuned & {*shapes_prompts(shapes, 32, 1)}, "without care some would be"
    held_out, _ = _subject(shapes / "model", None, count=32, steps=4, guidance=4.0, size=None, seed=1, held_out=True)
    assert len(held_out.prompts) == 32
    assert not tuned & set(held_out.prompts)


def test_the_sampler_is_the_one_that_was_asked_for(subject: Subject) -> None:
    (found,) = keeping(subject, "EulerDiscreteScheduler", ["budget=0,refreshEvery=3"], count=1, seed=5)
    assert found["scheduler"] == "EulerDiscreteScheduler"
    with pytest.raises(BadConfiguration, match="FlowMatch"):
        keeping(subject, "FlowMatchEulerDiscreteScheduler", ["budget=0"], count=1, seed=5)


def test_below_each_picture_is_what_it_differs_by() -> None:
    exact, other = np.full((8, 6, 3), 0.5), np.full((8, 6, 3), 0.5)
    other[0] = 0.51
    sheet = np.asarray(strip({"Exact": [exact], "Guided:budget=30": [other]}))
    height = sheet.shape[0] - 2 * 12
    left = sheet.shape[1] // 2
    assert (sheet[height : height + 8, left : left + 6] == (other * 255).round()).all()
    below = sheet[height + 12 : height + 20, left : left + 6]
    assert (below[0] == round(0.01 * MAGNIFIED * 255)).all()
    assert not below[1:].any()
    assert not sheet[height + 12 : height + 20, :6].any(), "nothing below the exact one"
