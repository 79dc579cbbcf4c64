"""A run over two ranks, for every task: what one rank computes, and checkpoints that resume to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import tiny_models
import torch
import training_run
from PIL import Image
from ranks import RankPool
from training_run import PREFIX

SPECS = {
    "CausalLM": {"dataset": {"uri": "data", "sequenceLength": 16}},
    "ImageClassification": {},
    "DiffusionTransformer": {"initialWeights": "Pretrained", "dataset": {"uri": "data", "imageSize": 16}},
}


def prepare(task: str, folder: Path) -> None:
    """A model and a data set of 24 samples."""
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    if task == "CausalLM":
        tiny_models.llama(folder / "model", layers=4)
        (folder / "data" / "train.txt").write_text(tiny_models.CORPUS)
        return
    rows = []
    for number in range(24):
        path = folder / "picture.png"
        side = 8 if task == "ImageClassification" else 16
        Image.fromarray(rng.integers(0, 256, size=(side, side, 3), dtype=np.uint8)).save(path)
        other = {"label": number % 10} if task == "ImageClassification" else {"caption": f"picture {number % 3}"}
        rows.append({"image": path.read_bytes(), **other})
    parquet.write_table(pa.Table.from_pylist(rows), folder / "data" / "train.parquet")
    if task == "ImageClassification":
        tiny_models.vit(folder / "model")
    else:
        tiny_models.diffusion(folder / "model")


def attempt(task: str, folder: Path, number: int, *, pipeline: int = 1, data: int = 1, stop_after=None) -> list[str]:
    job = tiny_models.job(
        task,
        **{
            "parallelism": {"pipeline": pipeline, "data": data, "microbatches": 2},
            "workers": {"gpusPerNode": pipeline * data},
            "optimizer": {"name": "SGD", "learningRate": "0.05", "warmupSteps": 0, "ema": "0.9"},
            **SPECS[task],
        },
    )
    training_run.fetched(job, model=folder / "model", data=folder / "data", folder=folder, attempt=number)
    with training_run.uploading(folder, number):
        if pipeline * data == 1:
            training_run.run_rank(folder, number, stop_after)
            return ["done"]
        return RankPool.of(pipeline * data).run(
            "training_run:pool_run", folder=str(folder), attempt=number, stop_after=stop_after
        )


def ends(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    return training_run.stored_weights(folder), json.loads((folder / "store" / PREFIX / "manifest.json").read_text())


@pytest.mark.parametrize("task", SPECS)
def test_two_ranks_train_what_one_rank_does_and_go_on_to_the_bit(task, tmp_path):
    folders = {name: tmp_path / name for name in ("one", "two", "resumed")}
    for folder in folders.values():
        folder.mkdir()
        prepare(task, folder)
    attempt(task, folders["one"], 0)
    assert attempt(task, folders["two"], 0, pipeline=2) == ["done", "done"]
    stopped = attempt(task, folders["resumed"], 0, pipeline=2, stop_after=3)
    assert all("stopped after step 3 of 4" in one for one in stopped)
    assert attempt(task, folders["resumed"], 1, pipeline=2) == ["done", "done"]

    one, manifest = ends(folders["one"])
    two, split = ends(folders["two"])
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert split["loss"] == pytest.approx(manifest["loss"], rel=1e-4)
    assert split["validationLoss"] == pytest.approx(manifest["validationLoss"], rel=1e-4)
    resumed, _ = ends(folders["resumed"])
    assert all(torch.equal(resumed[name], two[name]) for name in two)


def test_replicas_train_what_one_rank_does(tmp_path):
    folders = {name: tmp_path / name for name in ("one", "two")}
    for folder in folders.values():
        folder.mkdir()
        prepare("CausalLM", folder)
    attempt("CausalLM", folders["one"], 0)
    assert attempt("CausalLM", folders["two"], 0, data=2) == ["done", "done"]
    one, _ = ends(folders["one"])
    two, _ = ends(folders["two"])
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_what_two_ranks_exported_is_loaded_by_the_library(tmp_path):
    import diffusers

    prepare("DiffusionTransformer", tmp_path)
    assert attempt("DiffusionTransformer", tmp_path, 0, pipeline=2) == ["done", "done"]
    folder = tmp_path / "store" / PREFIX / "model"
    stored = training_run.stored_weights(tmp_path)
    files = sorted(path.name for path in (folder / "transformer").iterdir())
    assert files[:3] == [
        "config.json",
        "diffusion_pytorch_model-00001-of-00002.safetensors",
        "diffusion_pytorch_model-00002-of-00002.safetensors",
    ]
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    own = pipe.transformer.state_dict()
    assert all(torch.equal(own[name], value) for name, value in stored.items())
