"""`frazil plan`: what it says, without a weight."""

import json

import pytest
from frazil_command import PROMPTS, job_of


@pytest.fixture
def plan(frazil, tiny_model):
    def call(*options, **changes):
        ended = frazil("plan", frazil.write_job(job_of(tiny_model, **changes)), *options)
        return ended.returncode, ended

    return call


def test_the_object_says_all_that_the_help_names(plan, tiny_model):
    code, ended = plan("--json", "--ranks", "2", "--threads", "1")
    assert code == 0, ended.stderr
    found = json.loads(ended.stdout)
    uid = found["outputs"]["uid"]
    assert len(uid) == 64
    assert found == {
        "name": "tiny",
        "namespace": "default",
        "kind": "GenerationJob",
        "mode": "Exact",
        "outputs": {
            "count": 16,
            "prompts": len(PROMPTS),
            "perPrompt": 2,
            "format": "png",
            "shards": 3,
            "perShard": 3,
            "promptsSha256": found["outputs"]["promptsSha256"],
            "uid": uid,
            "prefix": f"default/tiny-{uid[:8]}",
            "firstKey": "images/000000-00.png",
            "lastKey": "images/000007-01.png",
            "firstSeed": 0,
        },
        "model": {
            "uri": str(tiny_model),
            "pipeline": "PixArtAlphaPipeline",
            "bytes": found["model"]["bytes"],
            "dtype": "float32",
        },
        "guidance": {"style": "one-call", "branches": 2, "reason": found["guidance"]["reason"]},
        "here": {
            "device": "cpu",
            "ranks": 2,
            "replicas": 1,
            "threads": 1,
            "degrees": {"conditioning": 2, "pipeline": 1, "sequence": 1},
            "grid": [{"rank": 0, "branch": 0, "stage": 0, "part": 0}, {"rank": 1, "branch": 1, "stage": 0, "part": 0}],
            "notes": [],
        },
        "cluster": {
            "replicas": 1,
            "podsAtOnce": 1,
            "gpusAtOnce": 2,
            "indices": 3,
            "objects": found["cluster"]["objects"],
        },
        "speedUp": {
            "bound": 2.0,
            "measuredBound": found["speedUp"]["measuredBound"],
            "measure": f"frazil bench exact --model {tiny_model}",
        },
        "modes": {"rows": found["modes"]["rows"], "notCounted": None},
        "message": {"bytesPerStep": 2 * 8 * 8 * 8 * 4, "perStep": 1, "steps": 40, "what": found["message"]["what"]},
        "changes": found["changes"],
        "problems": [],
    }


def test_every_mode_is_told_with_its_counted_bound_and_what_it_changes(plan):
    code, ended = plan("--json", "--ranks", "2")
    assert code == 0, ended.stderr
    found = json.loads(ended.stdout)
    exact, hybrid, guided, alone = found["modes"]["rows"]
    assert [row["mode"] for row in (exact, hybrid, guided, alone)] == ["Exact", "Hybrid", "Guided", "Guided"]
    assert (exact["bound"], exact["changes"], exact["approximatedSteps"]) == (2.0, "nothing", 0)
    assert exact["bytesPerStep"] == 2 * found["message"]["bytesPerStep"], "each of two ranks sends one"
    assert hybrid["approximatedSteps"] == 4, "a tenth of 40 steps"
    assert 2.0 < hybrid["bound"] < guided["bound"]
    assert alone["gpus"] == 1
    assert alone["bound"] == pytest.approx(guided["bound"] / 2), "reuse is not parallelism"
    drawn = plan("--ranks", "2")[1].stdout
    for words in ("Hybrid", "guidance is off in 4 steps", "Guided"):
        assert words in drawn


def test_a_person_sees_the_grid_the_keys_and_the_bound(plan):
    code, ended = plan("--quick", "--ranks", "2")
    assert code == 0, ended.stderr
    for words in ("branch 0", "rank 1", "images/000000-00.png", "at most 2×", "frazil bench exact", "nothing:"):
        assert words in ended.stdout, ended.stdout


def test_what_only_the_model_could_tell_is_said_to_be_unknown(plan):
    code, ended = plan("--quick", "--ranks", "2", **{"spec.model.uri": "hf://nobody/nothing"})
    assert code == 0, ended.stderr
    text = " ".join(ended.stdout.split())
    assert "guidance not known: it takes the model's own files" in text
    assert "each step one all-gather of the predicted noise, sent by each rank; its size isn't known here" in text


def test_the_outputs_lie_in_the_folder_that_the_job_names(plan):
    code, ended = plan("--quick", "--json", **{"spec.output": {"prefix": "ads/may"}})
    assert code == 0, ended.stderr
    outputs = json.loads(ended.stdout)["outputs"]
    assert outputs["prefix"] == f"default/ads/may/tiny-{outputs['uid'][:8]}"


def test_all_problems_are_told_at_once_and_the_gravest_sets_the_code(plan, frazil):
    (frazil.folder / "bad.jsonl").write_text('{"prompt": 1}\n')
    changes = {
        "spec.prompts": {"uri": "bad.jsonl"},
        "spec.model.uri": "nowhere",
        "spec.sampling.scheduler": "NoScheduler",
    }
    code, ended = plan("--json", "--ranks", "3", **changes)
    problems = {problem["field"]: problem["exitCode"] for problem in json.loads(ended.stdout)["problems"]}
    assert code == 78
    assert {"--ranks", "spec.model.uri", "spec.sampling.scheduler"} <= set(problems)
    assert 65 in problems.values()


def test_no_guidance_is_found_before_anything_loads(plan):
    code, ended = plan("--json", "--ranks", "2", **{"spec.sampling.guidanceScale": "1.0"})
    (problem,) = json.loads(ended.stdout)["problems"]
    assert code == 78
    assert problem["field"] == "spec.parallelism.conditioning"
    assert "whenUnguided" in problem["remedy"]


def test_a_plan_stores_nothing_and_imports_no_torch_when_it_is_to_be_quick(frazil, tiny_model):
    job = frazil.write_job(job_of(tiny_model))
    frazil.env = {"PYTHONPROFILEIMPORTTIME": "1"}
    ended = frazil("plan", job, "--quick", "--json", "--store", frazil.store)
    assert ended.returncode == 0
    assert not frazil.store.exists()
    imported = {
        line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")
    }
    assert "pydantic" in imported
    assert not imported & {"torch", "diffusers", "transformers"}
