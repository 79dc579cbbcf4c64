"""`frazil run` of a TrainingJob: the parts of a pod, live numbers, Ctrl-C that stores a checkpoint, and a resumed run."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import tiny_models
import yaml
from frazil_command import PROMPTS, Frazil, job_of
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def place(tmp_path):
    """A small Llama and a text, beside a job of two ranks."""
    tiny_models.llama(tmp_path / "model")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.txt").write_text(tiny_models.CORPUS)
    return tmp_path


def write(folder, **spec):
    job = tiny_models.job(
        **{
            "task": "CausalLM",
            "dataset": {"uri": "data", "sequenceLength": 16},
            "parallelism": {"pipeline": 2, "microbatches": 2},
            "workers": {"gpusPerNode": 2},
            **spec,
        },
    )
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(job.document()))
    return path


def test_a_training_from_a_file_to_a_model_and_on_when_steps_grow(place, tmp_path):
    frazil = Frazil(tmp_path)
    ended = frazil("run", write(place, steps=4), "--store", frazil.store, "--device", "cpu", "--json", timeout=900)
    assert ended.returncode == 0, ended.stderr + frazil.logs()
    found = json.loads(ended.stdout)
    assert (found["steps"], found["stepsBefore"], found["ranks"]) == (4, 0, 2)
    assert found["loss"] < 6
    more = frazil("run", write(place, steps=6), "--store", frazil.store, "--device", "cpu", "--json", timeout=900)
    assert more.returncode == 0, more.stderr + frazil.logs()
    again = json.loads(more.stdout)
    assert again["uid"] == found["uid"], "more steps are the same job"
    assert (again["stepsBefore"], again["attempt"]) == (4, 1)


def test_a_generation_job_takes_what_a_training_exports(tmp_path):
    tiny_models.diffusion(tmp_path / "model")
    rows = []
    for number in range(16):
        file = io.BytesIO()
        Image.new("RGB", (16, 16), (10 * number, 100, 200)).save(file, "PNG")
        rows.append({"image": file.getvalue(), "caption": f"picture {number % 3}"})
    (tmp_path / "data").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "train.parquet")
    dataset = {"uri": "data", "imageSize": 16}
    training = write(tmp_path, task="DiffusionTransformer", initialWeights="Pretrained", dataset=dataset, steps=2)
    frazil = Frazil(tmp_path)
    trained = frazil("run", training, "--store", frazil.store, "--device", "cpu", "--json", timeout=900)
    assert trained.returncode == 0, trained.stderr + frazil.logs()
    exported = tmp_path / json.loads(trained.stdout)["model"]
    job = frazil.write_job(job_of(exported, **{"spec.sampling.steps": 2, "spec.imagesPerPrompt": 1}))
    made = frazil("run", job, "--store", frazil.store, "--device", "cpu", "--json", timeout=900)
    assert made.returncode == 0, made.stderr + frazil.logs()
    assert json.loads(made.stdout)["images"] == len(PROMPTS)


def test_the_digits_are_learned(tmp_path):
    folder = shutil.copytree(EXAMPLES / "digits", tmp_path / "digits", ignore=shutil.ignore_patterns("data"))
    subprocess.run([sys.executable, str(folder / "make.py")], check=True, timeout=300)
    frazil = Frazil(tmp_path)
    ended = frazil("run", folder / "train.yaml", "--store", frazil.store, "--device", "cpu", "--json", timeout=1100)
    assert ended.returncode == 0, ended.stderr + frazil.logs()
    found = json.loads(ended.stdout)
    assert found["steps"] == 600
    assert found["accuracy"] >= 0.9
    assert 0 < found["freezeRatio"] <= 0.31


def test_a_column_that_is_not_there_is_told_before_anything_starts(place, tmp_path):
    frazil = Frazil(tmp_path)
    job = write(place, dataset={"uri": "data", "columns": {"text": "story"}})
    ended = frazil("run", job, "--store", frazil.store)
    assert ended.returncode == 65
    assert "spec.dataset.columns.text" in ended.stderr
    assert "columns there: text" in ended.stderr
