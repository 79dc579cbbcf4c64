"""The TrainingJobs of examples/: each is a job, and its data is what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from frazil_jobs.api.load import load_job
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.inputs.dataset_files import look

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["shapes", "digits", "text"])
def test_each_file_is_a_job(name: str) -> None:
    job = load_job(EXAMPLES / name / "train.yaml")
    assert isinstance(job, TrainingJob)
    assert job.spec.parallelism.pipeline == 2


def test_the_pictures_of_shapes_are_read_by_its_job_and_keep_combinations_apart(tmp_path) -> None:
    import pyarrow.parquet as parquet

    sys.path.insert(0, str(EXAMPLES / "shapes"))
    import draw
    import pictures

    pictures.write(tmp_path / "train.parquet", draw.TRAINING, 12, 0)
    pictures.write(tmp_path / "validation.parquet", sorted(draw.HELD_OUT), 6, 1)
    job = load_job(EXAMPLES / "shapes" / "train.yaml")
    found = look(tmp_path, job.spec.dataset, job.spec.task)
    assert found.columns == {"image": "image", "caption": "caption"}
    held_out = {scene.prompt for scene in draw.HELD_OUT}
    captions = {
        split: parquet.read_table(tmp_path / f"{split}.parquet")["caption"].to_pylist()
        for split in ("train", "validation")
    }
    assert not held_out & set(captions["train"])
    assert set(captions["validation"]) <= held_out
