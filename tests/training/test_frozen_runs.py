"""The real trainer while it freezes: killed in any phase, it goes on from its checkpoint and ends with the same bits; and so
does another run that replays its plans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
import torch
import training_run
from ranks import RankPool, RanksFailed

from frazil_cli.trainingplan.planning import make_training_plan
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs.access import Access
from frazil_jobs.training.partition import stage_blocks
from frazil_jobs.training.planning.estimate import Device
from frazil_jobs.training.session import order_for, plans_of
from frazil_jobs.training.tasks import open_task

STEPS = 14
PHASES = {4: "Monitoring", 7: "Ramp", 12: "Stable"}
"""Steps that were done, and the phase that the last of them was in."""


def make(folder: Path) -> Path:
    folder.mkdir()
    tiny_models.llama(folder / "model")
    (folder / "data").mkdir()
    (folder / "data" / "train.txt").write_text(tiny_models.CORPUS)
    return folder


def job_of(*, every: int) -> TrainingJob:
    return tiny_models.job(
        "CausalLM",
        dataset={"uri": "data", "sequenceLength": 16},
        steps=STEPS,
        optimizer={"warmupSteps": 2, "learningRate": "0.01", "ema": "0.9"},
        parallelism={"pipeline": 2, "microbatches": 4},
        workers={"gpusPerNode": 2},
        freezing={"monitorSteps": 3, "rampSteps": 4, "maxFreezeRatio": "0.5"},
        checkpoint={"everySteps": every},
        evaluation={"everySteps": 7, "batches": 1},
    )


def attempt(folder: Path, number: int, every: int = STEPS, **how) -> None:
    """One attempt on two ranks, with a checkpoint every so many steps."""
    job = job_of(every=every)
    training_run.fetched(job, model=folder / "model", data=folder / "data", folder=folder, attempt=number)
    with training_run.uploading(folder, number):
        ended = RankPool.of(2).run("training_run:pool_run_frozen", folder=str(folder), attempt=number, **how)
    assert ended == ["done", "done"]


def same(one: Path, other: Path) -> bool:
    first, second = training_run.stored_weights(one), training_run.stored_weights(other)
    assert set(first) == set(second) != set()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make(tmp_path_factory.mktemp("frozen") / "undisturbed")
    attempt(folder, 0)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("cuts", [(7,), tuple(PHASES)], ids=str)
def test_a_run_killed_in_any_phase_ends_with_the_same_bits(cuts, undisturbed, tmp_path):
    folder = make(tmp_path / "killed")
    for number, cut in enumerate(cuts):
        with pytest.raises(RanksFailed, match="the rank's process ended"):
            attempt(folder, number, every=cut, dies_after=cut)
        own = training_run.kept(folder)
        assert own["step"] == cut
        assert own["history"]["points"][-1]["phase"] == PHASES[cut]
    attempt(folder, len(cuts))
    assert same(folder, undisturbed)
    points = training_run.kept(folder)["history"]["points"]
    assert [point["step"] for point in points] == list(range(1, STEPS + 1))
    assert points[-1]["freeze_ratio"] > 0.1
    assert {point["attempt"] for point in points} == set(range(len(cuts) + 1))


def test_figures_of_a_point_are_of_one_step(undisturbed):
    points = training_run.kept(undisturbed)["history"]["points"]
    predicted = {point["phase"]: point["predicted_seconds"] for point in points}
    assert predicted["Monitoring"] is None is predicted["Warmup"]
    assert predicted["Ramp"] == predicted["Stable"] > 0
    ramp = [point["freeze_ratio"] for point in points if point["phase"] == "Ramp"]
    assert ramp[0] < points[-1]["freeze_ratio"], "told anew when the phase changes"


@pytest.mark.parametrize("live", [False, True])
def test_a_run_that_replays_the_plans_of_another_ends_with_the_same_bits(live, undisturbed, tmp_path):
    first = undisturbed
    if live:
        first = make(tmp_path / "live")
        attempt(first, 0, injected=False)
    other = make(tmp_path / "replayed")
    plans = first / "store" / training_run.PREFIX / "plans.json"
    assert json.loads(plans.read_text()) == training_run.kept(first)["freezing"]["controller"]["log"] != []
    attempt(other, 0, injected=False, replay=str(plans))
    assert same(first, other)
    replayed = training_run.kept(other)
    ratios = [point["freeze_ratio"] for point in replayed["history"]["points"]]
    assert max(ratios) > 0
    assert live or ratios[-1] > 0.1


def test_the_times_that_a_run_wrote_are_planned_with(undisturbed):
    job = job_of(every=STEPS)
    file = undisturbed / "store" / training_run.PREFIX / "timings.json"
    (plan,) = training_run.kept(undisturbed)["freezing"]["controller"]["log"]
    found = make_training_plan(
        job, base_dir=undisturbed, access=Access.from_env({}), timings=file, device=Device(), compare=False
    )
    assert found.problems == []
    assert found.document["timings"]["provenance"] == "recorded"
    task = open_task(job, undisturbed / "model")
    assert found.document["schedule"]["blocks"] == [len(held) for held in stage_blocks(task, order_for(task))]
    assert found.document["freezing"]["meanFreezeRatio"] == plan["plan"]["mean_freeze_ratio"]
    assert found.document["step"]["seconds"] == plan["plan"]["makespan"]


@pytest.mark.parametrize("text", ["", "{}", '[{"step": 1}]'])
def test_a_file_without_plans_is_refused(text, tmp_path):
    (tmp_path / "plans.json").write_text(text)
    with pytest.raises(BadConfiguration, match="holds no freezing plans") as caught:
        plans_of(tmp_path / "plans.json")
    assert caught.value.field == "FRAZIL_REPLAY"


def test_plans_to_replay_are_refused_by_a_job_that_takes_none(undisturbed, tmp_path):
    folder = make(tmp_path / "plain")
    plain = tiny_models.job("CausalLM", dataset={"uri": "data", "sequenceLength": 16})
    training_run.fetched(plain, model=folder / "model", data=folder / "data", folder=folder)
    with pytest.raises(BadConfiguration, match="method None takes none") as caught:
        training_run.run_rank(folder, 0, replay=undisturbed / "store" / training_run.PREFIX / "plans.json")
    assert caught.value.field == "spec.freezing.method"
