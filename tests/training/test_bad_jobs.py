"""A TrainingJob that can't work is refused with the field and the way out, by the first who can see it: the API server from
the object alone, `frazil run` (and `fetch`) from data and model folder, the ranks from the model before they meet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny_models
import training_run
from crd_server import admit
from job_cases import TRAINING, changed

from frazil_cli.machine import Machine
from frazil_cli.prepare import Wishes
from frazil_cli.preparetraining import prepare_training
from frazil_jobs.api import crd
from frazil_jobs.api.load import job_of
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import FrazilError

CRD = crd.crd(TrainingJob)
SERVER, START, RANKS = "the API server", "before the start", "the ranks"
GOOD = changed(
    TRAINING,
    {
        "spec.model.uri": "model",
        "spec.initialWeights": "Random",
        "spec.dataset": {"uri": "data", "sequenceLength": 16},
        "spec.steps": 2,
        "spec.batchSize": 8,
        "spec.parallelism": {"microbatches": 4},
        "spec.workers": {"gpusPerNode": 2},
        "spec.checkpoint": {"everySteps": 2},
    },
)


class Bad(NamedTuple):
    """A change that makes the good job a bad one."""

    changes: dict[str, Any]
    by: str
    field: str
    words: str
    """Of the message and its remedy."""


ONE = {"spec.parallelism.pipeline": 1, "spec.workers.gpusPerNode": 1, "spec.freezing.method": "None"}
EIGHT = {"spec.workers.gpusPerNode": 8, "spec.batchSize": 64, "spec.parallelism.microbatches": 8}
CASES = {
    "fewer microbatches than ranks": Bad(
        {"spec.parallelism.microbatches": 1}, SERVER, "spec.parallelism.microbatches", "raise it to at least pipeline"
    ),
    "microbatches in no equal rounds": Bad(
        {"spec.parallelism": {"schedule": "Interleaved1F1B", "microbatches": 5}, "spec.batchSize": 10},
        SERVER, "spec.parallelism.microbatches", "choose a multiple of pipeline",
    ),
    "a split backward on one rank": Bad(
        {"spec.parallelism.pipeline": 1, "spec.workers.gpusPerNode": 1, "spec.freezing.method": "None",
         "spec.parallelism.schedule": "ZBH1"},
        SERVER, "spec.parallelism.schedule", "need at least two pipeline ranks",
    ),
    "a batch that does not divide": Bad(
        {"spec.batchSize": 6}, SERVER, "spec.batchSize", "must be a multiple of parallelism.microbatches"
    ),
    "a batch that accumulation does not divide": Bad(
        {"spec.accumulation": 4}, SERVER, "spec.batchSize", "must be a multiple of parallelism.microbatches"
    ),
    "more ranks than GPUs": Bad(
        {"spec.parallelism.data": 2}, SERVER, "spec.parallelism", "must equal workers.nodesPerReplica"
    ),
    "a LoRA to train with": Bad(
        {"spec.model.lora": [{"uri": "lora"}]}, SERVER, "spec.model.lora", "merge them into the folder's weights"
    ),
    "pictures of a text": Bad(
        {"spec.dataset.imageSize": 16}, SERVER, "spec.dataset.imageSize", "for tasks that see pictures"
    ),
    "a data set without the column": Bad(
        {"spec.dataset.columns.text": "story"}, START, "spec.dataset.columns.text", "columns there: text"
    ),
    "no such split": Bad({"spec.dataset.split": "test"}, START, "spec.dataset.split", "splits there: train"),
    "a data set of another task": Bad(
        {"spec.task": "ImageClassification", "spec.dataset": {"uri": "data"}},
        START, "spec.dataset.columns.image", "columns there: text",
    ),
    "a model without weights": Bad(
        {"spec.initialWeights": "Pretrained"}, START, "spec.model.uri", "or begin from initialWeights: Random"
    ),
    "fewer layers than stages": Bad(
        {"spec.parallelism.pipeline": 8, **EIGHT}, RANKS, "spec.parallelism.pipeline", "at most 4 ranks"
    ),
    "fewer layers than the stages of two a rank": Bad(
        {"spec.parallelism": {"pipeline": 4, "schedule": "ZBV", "microbatches": 8}, "spec.batchSize": 64,
         "spec.workers.gpusPerNode": 4},
        RANKS, "spec.parallelism.pipeline", "at most 2 ranks with this schedule",
    ),
    "longer sequences than the model has positions": Bad(
        {"spec.dataset.sequenceLength": 128}, RANKS, "spec.dataset.sequenceLength", "at most 64"
    ),
    "longer sequences than the text": Bad(
        {"spec.dataset": {"uri": "short", "sequenceLength": 64}},
        RANKS, "spec.dataset.sequenceLength", "give more text, or shorter sequences",
    ),
    "an unknown setting of the reader": Bad(
        {"spec.dataset.extra": {"captionDropout": 0.5}}, RANKS, "spec.dataset.extra.captionDropout", "settings: none"
    ),
    "a checkpoint of a narrower model": Bad(
        {"spec.model.uri": "wider", **ONE}, RANKS, "spec.checkpoint.resume", "give the job another name"
    ),
    "a checkpoint of a model with more layers": Bad(
        {"spec.model.uri": "shorter", **ONE}, RANKS, "spec.checkpoint.resume", "give the job another name"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and texts, and a store with a checkpoint of `model`."""
    folder = tmp_path_factory.mktemp("bad-jobs")
    tiny_models.llama(folder / "model")
    tiny_models.llama(folder / "wider", intermediate_size=96)
    tiny_models.llama(folder / "shorter", layers=2)
    for name, text in (("data", tiny_models.CORPUS), ("short", "a fox")):
        (folder / name).mkdir()
        (folder / name / "train.txt").write_text(text)
    with training_run.uploading(folder, 0):
        train(changed(GOOD, ONE), folder, 0)
    return folder


def train(document: dict[str, Any], folder: Path, attempt: int) -> None:
    """What the first rank does, as far as it comes without the others."""
    job = job_of(document)
    training_run.fetched(
        job,
        model=folder / job.spec.model.uri,
        data=folder / job.spec.dataset.uri,
        folder=folder,
        attempt=attempt,
    )
    training_run.run_rank(folder, attempt, world=job.spec.parallelism.pipeline)


def refusal(document: dict[str, Any], folder: Path) -> tuple[str, str | None, str]:
    """Who refuses a job, the field, and all that is said."""
    if problems := admit(CRD, document):
        with pytest.raises(FrazilError) as caught:
            job_of(document)
        (problem,) = problems
        said = problem.rpartition(": ")[2]
        assert said in str(caught.value), "offline as by the server"
        return SERVER, caught.value.field, str(caught.value)
    machine = Machine(cores=8, gpus=())
    try:
        prepare_training(
            job_of(document), folder / "job.yaml", store=None, wishes=Wishes(device="cpu"), machine=machine
        )
    except FrazilError as error:
        return START, error.field, str(error)
    with pytest.raises(FrazilError) as caught:
        train(document, folder, 1)
    return RANKS, caught.value.field, str(caught.value)


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES)
def test_a_bad_job_is_refused_with_field_and_remedy_by_the_first_who_can_see_it(bad: Bad, place: Path) -> None:
    by, field, said = refusal(changed(GOOD, bad.changes), place)
    assert (by, field) == (bad.by, bad.field)
    assert bad.words in said


def test_the_good_job_is_good(place: Path) -> None:
    assert admit(CRD, GOOD) == []
    prepare_training(
        job_of(GOOD), place / "job.yaml", store=None, wishes=Wishes(device="cpu"), machine=Machine(cores=8, gpus=())
    )
