"""Samples of both splits as a task sees them: a class has the training split's number in each."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from PIL import Image

from frazil_jobs.api.trainingjob import Dataset
from frazil_jobs.base.exits import BadInput
from frazil_jobs.inputs.dataset_files import look
from frazil_jobs.training.data.feed import Data, open_data
from frazil_jobs.training.tasks import open_task

GREY = {"ant": 40, "bee": 120, "cat": 200, "dog": 250}


def opened(folder: Path, **splits: list[str]) -> Data:
    """An imagefolder with two pictures a class, in the grey of their class."""
    for split, classes in splits.items():
        for name in classes:
            for number in range(2):
                path = folder / "data" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), GREY[name]).save(path)
    job = tiny_models.job("ImageClassification", dataset={"uri": "data", "validationSplit": "validation"})
    task = open_task(job, tiny_models.vit(folder / "model"))
    files = look(folder / "data", Dataset.model_validate(job.spec.dataset.document()), "ImageClassification")
    return open_data(task, files, scratch=folder / "scratch")


def classes_of(part) -> dict[int, int]:
    """Grey of the pictures to their label."""
    rows = [part[at] for at in range(len(part))]
    return {round(float((row["pixels"].mean() * 0.5 + 0.5) * 255)): row["label"] for row in rows}


@pytest.mark.parametrize("held", [["bee", "cat", "dog"], ["dog", "bee"], list(GREY)])
def test_classes_of_the_validation_split_have_the_numbers_of_the_training_split(held, tmp_path):
    data = opened(tmp_path, train=list(GREY), validation=held)
    learned = classes_of(data.training)
    assert learned == {grey: number for number, grey in enumerate(GREY.values())}
    assert classes_of(data.validation) == {GREY[name]: learned[GREY[name]] for name in held}


def test_a_class_that_is_never_trained_is_refused(tmp_path):
    with pytest.raises(BadInput, match="class 'cat' of the validation split is none of the training split's: ant, bee"):
        opened(tmp_path, train=["ant", "bee"], validation=["bee", "cat"])
