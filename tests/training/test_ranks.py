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


def attempt(
    task: str,
    folder: Path,
    number: int,
    *,
    pipeline: int = 1,
    data: int = 1,
    schedule: str = "1F1B",
    work: str = "pool_run",
    how: dict | None = None,
    **spec,
) -> list[str]:
    job = tiny_models.job(
        task,
        **{
            "parallelism": {"pipeline": pipeline, "data": data, "microbatches": 2, "schedule": schedule},
            "workers": {"gpusPerNode": pipeline * data},
            "optimizer": {"name": "SGD", "learningRate": "0.05", "warmupSteps": 0, "ema": "0.9"},
            **SPECS[task],
            **spec,
        },
    )
    how = how or {}
    training_run.fetched(job, model=folder / "model", data=folder / "data", folder=folder, attempt=number)
    with training_run.uploading(folder, number):
        if pipeline * data == 1:
            training_run.run_rank(folder, number, **how)
            return ["done"]
        return RankPool.of(pipeline * data).run(f"training_run:{work}", folder=str(folder), attempt=number, **how)


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
    stopped = attempt(task, folders["resumed"], 0, pipeline=2, how={"stop_after": 3})
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


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A Llama trained by one rank."""
    folder = tmp_path_factory.mktemp("alone")
    prepare("CausalLM", folder)
    attempt("CausalLM", folder, 0)
    return folder


@pytest.mark.parametrize("schedule", ["GPipe", "Interleaved1F1B", "ZBV", "ZBH1"])
def test_a_librarys_model_is_trained_alike_by_every_schedule(schedule, alone, tmp_path):
    prepare("CausalLM", tmp_path)
    assert attempt("CausalLM", tmp_path, 0, pipeline=2, schedule=schedule) == ["done", "done"]
    one, manifest = ends(alone)
    two, split = ends(tmp_path)
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert split["loss"] == pytest.approx(manifest["loss"], rel=1e-4)
    assert split["validationLoss"] == pytest.approx(manifest["validationLoss"], rel=1e-4)


def test_with_checkpointed_activations_it_trains_the_same_to_the_bit_also_where_it_freezes(tmp_path):
    freezing = {"warmupSteps": 1, "monitorSteps": 1, "rampSteps": 0, "maxFreezeRatio": "0.5"}
    found = {}
    for checkpointed in (False, True):
        folder = tmp_path / str(checkpointed)
        folder.mkdir()
        prepare("CausalLM", folder)
        cut = {"pipeline": 2, "microbatches": 2, "partition": "Uniform", "activationCheckpointing": checkpointed}
        spec = {"parallelism": cut, "freezing": freezing, "steps": 6}
        assert attempt("CausalLM", folder, 0, pipeline=2, work="pool_run_frozen", **spec) == ["done", "done"]
        found[checkpointed], _ = ends(folder)
    assert all(torch.equal(found[True][name], value) for name, value in found[False].items())


@pytest.mark.parametrize("schedule", ["1F1B", "ZBH1"])
def test_in_bfloat16_it_learns_as_much_to_three_digits(schedule, alone, tmp_path):
    prepare("CausalLM", tmp_path)
    assert attempt("CausalLM", tmp_path, 0, pipeline=2, schedule=schedule, precision="bfloat16") == ["done", "done"]
    one, manifest = ends(alone)
    two, split = ends(tmp_path)
    assert split["loss"] == pytest.approx(manifest["loss"], rel=5e-3)
    assert {value.dtype for value in two.values()} == {torch.float32}
    assert any(not torch.equal(two[name], value) for name, value in one.items())


@pytest.mark.parametrize("task", ["ImageClassification", pytest.param("DiffusionTransformer", marks=pytest.mark.slow)])
def test_tasks_of_pictures_freeze_as_planned_and_go_on_to_the_bit(task, tmp_path):
    freezing = {"warmupSteps": 1, "monitorSteps": 1, "rampSteps": 0, "maxFreezeRatio": "0.5"}
    spec = {"freezing": freezing, "steps": 6, "checkpoint": {"everySteps": 4}}
    folders = {name: tmp_path / name for name in ("whole", "resumed")}
    for folder in folders.values():
        folder.mkdir()
        prepare(task, folder)
    work = "pool_run_frozen"
    assert attempt(task, folders["whole"], 0, pipeline=2, work=work, **spec) == ["done", "done"]
    stopped = attempt(task, folders["resumed"], 0, pipeline=2, work=work, how={"stop_after": 4}, **spec)
    assert all("stopped after step 4 of 6" in one for one in stopped)
    assert attempt(task, folders["resumed"], 1, pipeline=2, work=work, **spec) == ["done", "done"]
    whole, resumed = training_run.stored_weights(folders["whole"]), training_run.stored_weights(folders["resumed"])
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    (*_, last) = training_run.kept(folders["whole"])["history"]["points"]
    assert (last["phase"], last["freeze_ratio"] > 0.1) == ("Stable", True)


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


@pytest.mark.slow
def test_a_checkpoint_waits_for_the_store_for_longer_than_any_collective(tmp_path):
    ended = RankPool.of(2).run("training_run:pool_checkpoint", folder=str(tmp_path), collective=8.0, full_for=14.0)
    assert ended == [3, 3]
