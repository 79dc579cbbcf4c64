"""What is known of a run, from its spools."""

from types import SimpleNamespace

import pytest
import tiny_models

from frazil_cli.trainingwatch import TrainingWatch
from frazil_cli.watching import Watch
from frazil_cli.workspace import workspace
from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.outputs.progress import ShardProgress, TrainingProgress
from frazil_jobs.outputs.spool import Spool


@pytest.fixture
def watch(tmp_path):
    space = workspace(name="ice", uid="0" * 64, store="here", prefix="default/ice-0", work_dir=tmp_path)
    Spool(space.spool(0))
    return Watch(SimpleNamespace(images=8, layout=SimpleNamespace(replicas=1)), space)


def test_the_ranks_are_at_work_from_the_first_step_of_this_run_on(watch):
    spool = watch.space.spool(0)
    at_step = {"shard": 0, "total": 8, "steps": 30, "state": "Running"}
    ShardProgress(**at_step, step=12, updated_at=1.0).write(spool)  # left by a run that was killed
    watch.begin([])
    watch.look([0], 100.0)
    assert watch.first_step is None
    ShardProgress(**at_step, step=0).write(spool)  # the batch has begun: the first call may still compile or warm up
    watch.look([0], 101.0)
    assert watch.first_step is None
    ShardProgress(**at_step, step=1).write(spool)
    watch.look([0], 102.0)
    ShardProgress(**at_step, step=2).write(spool)
    watch.look([0], 103.0)
    assert watch.first_step == 102.0


@pytest.fixture
def training(tmp_path):
    space = workspace(name="lesson", uid="1" * 64, store="here", prefix="default/lesson-0", work_dir=tmp_path)
    Spool(space.spool(0))
    spec = {"steps": 100, "batchSize": 8, "parallelism": {"pipeline": 2, "microbatches": 2}, "freezing": {}}
    job = tiny_models.job(**spec, workers={"gpusPerNode": 2})
    return TrainingWatch(SimpleNamespace(job=job), space)


def test_of_a_training_the_time_left_and_what_is_frozen_are_shown(training):
    assert training.view("starting", [], 0.0).seconds_left is None
    TrainingProgress(
        step=40, steps=100, loss=1.25, validation_loss=None, accuracy=0.875, throughput=16.0, freeze_ratio=0.21,
        phase="Ramp", checkpoint=None,
    ).write(training.space.spool(0))  # fmt: skip
    view = training.view("training", [], 10.0)
    assert view.seconds_left == pytest.approx(60 * 8 / 16)
    assert (view.freeze_ratio, view.freezing) == (0.21, "Ramp")
    line = view.line()
    for said in ("step 40 of 100", "loss 1.25", "accuracy 87.5 %", "16 samples/s", "frozen 21% (ramp)", "30 s left"):
        assert said in line, line


def test_where_nothing_is_frozen_nothing_is_said_of_it(training):
    job = training.prepared.job
    plain = job.spec.model_copy(update={"freezing": Freezing(method="None")})
    training.prepared = SimpleNamespace(job=job.model_copy(update={"spec": plain}))
    TrainingProgress(step=1, steps=100, loss=1.0, throughput=None, freeze_ratio=0.0, phase="Off").write(
        training.space.spool(0)
    )
    view = training.view("training", [], 10.0)
    assert (view.freeze_ratio, view.seconds_left) == (None, None)
    assert "frozen" not in view.line()
