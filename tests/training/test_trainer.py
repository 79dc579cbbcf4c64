"""A whole run of one rank, and what it leaves: a model that the library loads, a report, checkpoints that resume exactly."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_models
import torch
import training_run
import transformers
from training_run import PREFIX

from frazil_jobs.api.checkpoints import Checkpoint
from frazil_jobs.base.exits import BadConfiguration, TryAgain
from frazil_jobs.inputs import checkpoints
from frazil_jobs.outputs.progress import spooled_training
from frazil_jobs.training.pipeline import PipelineEngine
from frazil_jobs.training.tasks import open_task

SPEC = {
    "dataset": {"uri": "data", "sequenceLength": 16},
    "optimizer": {"warmupSteps": 0, "learningRate": "0.01", "ema": "0.9"},
    "steps": 6,
    "accumulation": 2,
}


@dataclass
class World:
    """A model, a data set and a store."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "store" / PREFIX

    def attempt(self, number: int, *, stop_after: int | None = None, **spec) -> None:
        job = tiny_models.job("CausalLM", **{**SPEC, **spec})
        training_run.fetched(
            job, model=self.folder / "model", data=self.folder / "data", folder=self.folder, attempt=number
        )
        with training_run.uploading(self.folder, number):
            training_run.run_rank(self.folder, number, stop_after)


@pytest.fixture
def world(tmp_path) -> World:
    return make_world(tmp_path)


def make_world(folder: Path) -> World:
    tiny_models.llama(folder / "model", layers=2)
    (folder / "data").mkdir()
    (folder / "data" / "train.txt").write_text(tiny_models.CORPUS)
    return World(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> World:
    """A run that nothing disturbed."""
    world = make_world(tmp_path_factory.mktemp("finished"))
    world.attempt(0)
    return world


def test_the_loss_falls_and_the_manifest_says_what_was_made(finished: World) -> None:
    manifest = json.loads((finished.results / "manifest.json").read_text())
    assert manifest["steps"] == 6
    assert {file["key"] for file in manifest["outputs"]} >= {
        "model/config.json",
        "model/model.safetensors",
        "index.html",
    }
    (progress,) = spooled_training(finished.folder / "spool-0")
    assert progress.step == progress.steps == 6
    assert progress.checkpoint.step == 6
    assert manifest["loss"] < 5.0 < torch.log(torch.tensor(300.0)) + 0.1
    assert "<svg" in (finished.results / "index.html").read_text()


def test_the_exported_folder_is_loaded_by_the_library(finished: World) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(finished.results / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(finished.results / "model")
    stored = training_run.stored_weights(finished.folder)
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    ids = tokenizer("the quick brown fox", return_tensors="pt")["input_ids"]
    assert model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0).shape[1] == ids.shape[1] + 4


def test_what_is_exported_is_the_running_mean(finished: World, world: World) -> None:
    world.attempt(0, optimizer={"warmupSteps": 0, "learningRate": "0.01"})
    plain, mean = training_run.stored_weights(world.folder), training_run.stored_weights(finished.folder)
    assert any(not torch.equal(plain[name], mean[name]) for name in plain)


def test_a_run_that_was_stopped_goes_on_and_ends_bit_for_bit_as_one_that_was_not(finished: World, world: World) -> None:
    with pytest.raises(TryAgain, match="stopped after step 3 of 6"):
        world.attempt(0, stop_after=3)
    assert checkpoints.find(training_run.store_of(world.folder), PREFIX) == Checkpoint(3, 0)
    assert not (world.results / "manifest.json").exists()
    world.attempt(1)
    ended, undisturbed = training_run.stored_weights(world.folder), training_run.stored_weights(finished.folder)
    assert set(ended) == set(undisturbed)
    assert all(torch.equal(ended[name], undisturbed[name]) for name in ended)
    # Losses of the steps before the stop are those of the first attempt: the history goes with the checkpoint.
    page = (world.results / "index.html").read_text()
    assert "attempt 0 from step 1, attempt 1 from step 4" in page
    (progress,) = spooled_training(world.folder / "spool-1")
    assert progress.checkpoint.resumed_from_step == 3


def test_old_checkpoints_are_removed_once_newer_ones_are_committed(world: World) -> None:
    world.attempt(0, checkpoint={"everySteps": 1, "keepLast": 2}, steps=5, evaluation={"everySteps": 0})
    kept = sorted(path.name for path in (world.results / "checkpoints").iterdir() if any(path.iterdir()))
    assert len(kept) == 2
    assert kept[-1] == "step-00000005-a0"


def test_steps_that_grow_are_made_from_the_last_checkpoint(world: World) -> None:
    world.attempt(0, steps=2)
    world.attempt(1, steps=4)
    assert json.loads((world.results / "manifest.json").read_text())["steps"] == 4
    assert checkpoints.find(training_run.store_of(world.folder), PREFIX) == Checkpoint(4, 1)


def test_a_checkpoint_of_another_model_is_refused(world: World) -> None:
    world.attempt(0, steps=2)
    tiny_models.llama(world.folder / "model", layers=2, intermediate_size=96)
    with pytest.raises(BadConfiguration, match="another model") as caught:
        world.attempt(1)
    assert caught.value.field == "spec.checkpoint.resume"
    assert "resume: Never" in caught.value.remedy


def test_a_checkpoint_whose_file_was_changed_in_the_store_is_not_used(world: World) -> None:
    world.attempt(0, steps=2)
    part = next((world.results / "checkpoints").rglob("*.distcp"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(TryAgain, match="is not what the checkpoint's marker says"):
        world.attempt(1)


def test_a_gradient_that_is_no_number_changes_nothing_and_ends_the_run_when_it_goes_on(
    world: World, monkeypatch
) -> None:
    monkeypatch.setattr(PipelineEngine, "clip_gradients", lambda _engine, _norm: math.nan)
    world.attempt(0, steps=2, optimizer={"warmupSteps": 0, "learningRate": "0.01"})
    initial = (
        open_task(tiny_models.job("CausalLM", **SPEC), world.folder / "model").model().state_dict()
    )  # drawn with the job's seed
    stored = training_run.stored_weights(world.folder)
    assert all(torch.equal(stored[name], initial[name]) for name in stored)
    with pytest.raises(BadConfiguration, match="not finite in 20 steps") as caught:
        world.attempt(1, steps=30, evaluation={"everySteps": 0}, optimizer={"warmupSteps": 0, "learningRate": "0.01"})
    assert caught.value.field == "spec.optimizer.learningRate"
