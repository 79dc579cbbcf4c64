"""`frazil plan` for a TrainingJob: what it says, draws and refuses, without a weight."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from frazil_command import Frazil, job_of
from job_cases import changed

from frazil_cli.trainingplan.planning import TrainingPlan, make_training_plan
from frazil_jobs.api.load import job_of as parsed
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.inputs.access import Access
from frazil_jobs.training.planning import published
from frazil_jobs.training.planning.estimate import Device
from frazil_jobs.training.planning.schedules import order_of
from frazil_jobs.training.planning.timings import Timings

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "published-8b"
LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "vocab_size": 200,
    "max_position_embeddings": 128,
}


def document(**changes: object) -> dict:
    """A TrainingJob on 2 ranks. Dotted keywords change parts of it."""
    found = {
        "apiVersion": "frazil.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "tiny"},
        "spec": {
            "task": "CausalLM",
            "model": {"uri": "model"},
            "dataset": {"uri": "text"},
            "steps": 100,
            "batchSize": 32,
            "workers": {"gpusPerNode": 2},
        },
    }
    return changed(found, changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


def plan(folder: Path, *, timings: Path | None = None, compare: bool = False, **changes: object) -> TrainingPlan:
    job = parsed(document(**changes))
    access = Access.from_env({})
    return make_training_plan(job, base_dir=folder, access=access, timings=timings, device=Device(), compare=compare)


def test_times_are_counted_from_the_config_of_a_model_that_is_here(folder: Path) -> None:
    found = plan(folder).document
    assert found["model"] == {"uri": "model", "blocks": 6}
    assert found["batch"] == {"size": 32, "accumulation": 1, "microbatches": 8, "microbatchSize": 4}
    assert found["timings"]["provenance"] == "estimated"
    assert "100 TFLOP/s" in found["timings"]["source"]
    assert sum(found["schedule"]["blocks"]) == 6
    assert [place["stages"] for place in found["ranks"]["grid"]] == [[0], [1]]
    assert found["ranks"]["grid"][1]["blocks"][0][1] == 5
    assert 0 < found["step"]["seconds"] < found["step"]["unfrozenSeconds"]
    assert found["step"]["totalSeconds"] == pytest.approx(100 * found["step"]["seconds"])
    assert found["step"]["speedUp"] <= found["step"]["speedUpBound"]
    assert found["freezing"]["meanFreezeRatio"] <= 0.3
    assert found["freezing"]["gradientRate"] == pytest.approx(
        found["step"]["speedUp"] * (1 - found["freezing"]["meanFreezeRatio"])
    )


def test_without_the_model_only_proportions_are_known_and_no_second_is_told(folder: Path) -> None:
    made = plan(folder, **{"spec.model.uri": "hf://some/model"})
    assert made.problems == []
    step = made.document["step"]
    assert made.document["timings"]["relative"]
    assert step["seconds"] is step["unfrozenSeconds"] is step["totalSeconds"] is None
    assert step["speedUp"] > 1
    assert made.document["schedule"]["blocks"] is None


def test_two_pipelines_have_a_replica_after_the_other(folder: Path) -> None:
    found = plan(folder, **{"spec.parallelism": {"data": 2}, "spec.workers": {"gpusPerNode": 4}}).document
    assert [(place["rank"], place["replica"], place["stages"]) for place in found["ranks"]["grid"]] == [
        (0, 0, [0]),
        (1, 0, [1]),
        (2, 1, [0]),
        (3, 1, [1]),
    ]


@pytest.mark.parametrize("schedule", ["GPipe", "1F1B", "Interleaved1F1B", "ZBV", "ZBH1"])
def test_every_schedule_has_a_plan_and_panels_to_draw(folder: Path, schedule: str) -> None:
    made = plan(folder, **{"spec.parallelism": {"schedule": schedule}})
    assert made.problems == []
    assert made.document["schedule"]["name"] == schedule
    assert len(made.panels) == 2


def test_recorded_timings_of_the_jobs_own_order_are_taken_as_they_are(folder: Path) -> None:
    order = order_of("1F1B", ranks=2, microbatches=8)
    timings = Timings.of_stages(published.STAGES[:2], order.order, provenance="recorded", hop_seconds=0.001)
    (folder / "timings.json").write_text(timings.to_json())
    found = plan(folder, timings=folder / "timings.json").document
    assert found["timings"] == {
        "provenance": "recorded",
        "source": f"recorded, {folder / 'timings.json'}",
        "relative": False,
        "hopSeconds": 0.001,
    }


def test_recorded_timings_of_another_schedule_are_cut_anew(folder: Path) -> None:
    found = plan(
        folder,
        timings=EXAMPLE / "timings.json",
        **{"spec.parallelism": {"pipeline": 4, "schedule": "ZBV"}, "spec.workers": {"gpusPerNode": 4}},
    ).document
    assert "of another schedule" in found["timings"]["source"]
    assert found["schedule"]["stages"] == 8
    assert found["step"]["unfrozenSeconds"] < 0.54


def test_a_job_without_freezing_has_the_unfrozen_step_alone(folder: Path) -> None:
    made = plan(folder, **{"spec.freezing": {"method": "None"}})
    assert made.document["step"]["speedUp"] == 1
    assert made.document["freezing"]["meanFreezeRatio"] == 0
    assert len(made.panels) == 1


def test_what_a_metric_decides_is_not_foretold(folder: Path) -> None:
    found = plan(folder, **{"spec.freezing": {"method": "APF"}}).document["freezing"]
    assert found["meanFreezeRatio"] is found["stageMeans"] is found["gradientRate"] is None


def test_the_comparison_has_the_rows_and_what_each_schedule_needs(folder: Path) -> None:
    found = plan(folder, compare=True).document["comparison"]
    shown = {row["schedule"] for row in found["rows"]}
    assert shown == {"GPipe", "1F1B", "Interleaved1F1B", "ZBV", "ZBH1"}
    for row in found["rows"]:
        assert row["gradientRate"] == pytest.approx(row["speedUp"] * (1 - row["meanFreezeRatio"]))
        assert row["method"] in found["methods"]
    assert {target["as"] for target in found["reach"]} == {"1F1B, published", "1F1B, published as run"}


BAD = [
    # sentence, changes, field, words
    (
        "fewer blocks than stages",
        {"spec.parallelism": {"pipeline": 8}, "spec.workers": {"gpusPerNode": 8}},
        "spec.parallelism.pipeline",
        "6 blocks, too few for 8 stages",
    ),
    (
        "fewer blocks than the stages of two a rank",
        {"spec.parallelism": {"pipeline": 4, "schedule": "ZBV"}, "spec.workers": {"gpusPerNode": 4}},
        "spec.parallelism.pipeline",
        "6 blocks, too few for 8 stages",
    ),
    ("no such folder", {"spec.model.uri": "none"}, "spec.model.uri", "there is no"),
    ("a model of another task", {"spec.task": "ImageClassification"}, "spec.model.uri", "has no 'patch_size'"),
]


@pytest.mark.parametrize(("changes", "field", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_job_that_cannot_work_is_told_with_field_and_remedy(folder: Path, changes, field, words) -> None:
    (problem,) = plan(folder, **changes).problems
    assert isinstance(problem, BadConfiguration)
    assert problem.field == field
    assert words in problem.message
    assert problem.remedy


@pytest.mark.parametrize(
    "text", ["{}", "no json", '{"provenance": "recorded", "actions": {}, "hop_seconds": [], "x": 1}']
)
def test_a_file_that_holds_no_timings_is_refused(folder: Path, text: str) -> None:
    (folder / "bad.json").write_text(text)
    (problem,) = plan(folder, timings=folder / "bad.json").problems
    assert isinstance(problem, BadInput)
    assert problem.field == "--timings"
    assert "bad.json" in problem.message


def test_what_the_object_alone_shows_is_refused_when_it_is_read() -> None:
    for changes, field in (
        ({"spec.parallelism": {"pipeline": 4, "microbatches": 3}, "spec.workers": {"gpusPerNode": 4}}, "microbatches"),
        (
            {"spec.parallelism": {"microbatches": 5, "schedule": "Interleaved1F1B"}, "spec.batchSize": 10},
            "microbatches",
        ),
        ({"spec.parallelism": {"pipeline": 1, "schedule": "ZBV"}, "spec.workers": {"gpusPerNode": 1}}, "schedule"),
        ({"spec.batchSize": 31}, "batchSize"),
        ({"spec.workers": {"gpusPerNode": 3}}, "parallelism"),
    ):
        with pytest.raises(BadConfiguration) as refused:
            parsed(document(**changes))
        assert field in str(refused.value)


def test_the_command_prints_draws_and_exits_as_for_any_job(frazil: Frazil) -> None:
    shutil.copytree(EXAMPLE, frazil.folder / "example")
    example = frazil.folder / "example"
    drawn, traced = frazil.folder / "a" / "step.svg", frazil.folder / "a" / "step.json"
    ended = frazil(
        "plan", example / "job.yaml", "--timings", example / "timings.json", "--gantt", drawn, "--trace", traced
    )
    assert ended.returncode == 0, ended.stderr
    assert "658.6 ms with nothing frozen" in ended.stdout
    assert "408.8 ms, 1.61× as fast by the plan" in ended.stdout
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")
    assert json.loads(traced.read_text())["traceEvents"]


def test_options_of_the_other_kind_of_job_are_refused(frazil: Frazil) -> None:
    generation = frazil.write_job(job_of("hf://some/model"))
    ended = frazil("plan", generation, "--compare", "--json")
    assert ended.returncode == 78
    assert "--compare" in ended.stdout
    training = frazil.write_job(document(**{"spec.model.uri": "hf://some/model"}), "train.yaml")
    ended = frazil("plan", training, "--ranks", "2", "--json")
    assert ended.returncode == 78
    assert "--ranks" in ended.stdout
