"""What a person can get wrong: one clear message each, the right exit code, no traceback, nothing loaded."""

import json
import shutil

import pytest
from frazil_command import job_of


def lines(*rows) -> str:
    return "".join(f"{json.dumps(row) if not isinstance(row, str) else row}\n" for row in rows)


@pytest.fixture(scope="module")
def pickled(tiny_model, tmp_path_factory):
    """The model with one component's weights pickled."""
    folder = tmp_path_factory.mktemp("pickled") / "model"
    shutil.copytree(tiny_model, folder)
    for file in (folder / "transformer").glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    return folder


CASES = [
    # sentence, changes of the job, options, exit code, words of the message
    ("no such model", {"spec.model.uri": "no-such-model"}, (), 78, ["spec.model.uri", "there is no model folder"]),
    (
        "a hub's name without its scheme",
        {"spec.model.uri": "some/model"},
        (),
        78,
        ["spec.model.uri", "hf://some/model"],
    ),
    ("a pickle", {"spec.model.uri": "PICKLED"}, (), 78, ["spec.model.allowPickle", "pickle", "safetensors"]),
    ("no such prompt file", {"spec.prompts": {"uri": "none.jsonl"}}, (), 78, ["spec.prompts.uri", "none.jsonl"]),
    ("a bad line 17", {"spec.prompts": {"uri": "bad.jsonl"}}, (), 65, ["bad.jsonl", "line 17"]),
    (
        "no such scheduler",
        {"spec.sampling.scheduler": "EulerDiscreteSheduler"},
        (),
        78,
        ["scheduler", "EulerDiscreteScheduler"],
    ),
    ("degrees that do not fit", {}, ("--ranks", "3"), 78, ["--ranks", "multiply to 2", "3 ranks"]),
    ("no GPU", {}, ("--device", "cuda"), 78, ["--device", "no CUDA device"]),
    ("an output that can't be written", {}, ("--store", "/dev/null/here"), 78, ["--store", "/dev/null/here"]),
    ("no such store", {}, ("--store", "ftp://somewhere"), 78, ["--store", "ftp://"]),
    ("an unknown field", {"spec.sampling.stepz": 3}, (), 78, ["spec.sampling.stepz", "steps"]),
    ("a number where text is asked", {"spec.sampling.steps": "many"}, (), 78, ["spec.sampling.steps"]),
]


@pytest.mark.parametrize(("sentence", "changes", "options", "code", "words"), CASES, ids=[case[0] for case in CASES])
def test_one_clear_message(frazil, tiny_model, pickled, sentence, changes, options, code, words):
    (frazil.folder / "bad.jsonl").write_text(
        lines(*[{"prompt": f"a {n}"} for n in range(16)], '{"prompt": "a', {"prompt": "b"})
    )
    if changes.get("spec.model.uri") == "PICKLED":
        changes = {"spec.model.uri": str(pickled)}
    job = frazil.write_job(job_of(tiny_model, **changes))
    ended = frazil("run", job, *options)
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.count("error:") == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.stdout
    for word in words:
        assert word in ended.stderr, ended.stderr
    assert not list(frazil.folder.glob("work/*/logs/compute-*")), "it was found before the ranks"


def test_no_job_file(frazil):
    ended = frazil("run", "none.yaml")
    assert ended.returncode == 78
    assert "none.yaml" in ended.stderr


def test_a_usage_error_has_a_code_of_its_own(frazil):
    ended = frazil("run")
    assert ended.returncode == 64
    assert "JOB.yaml" in ended.stderr


def test_an_error_of_a_json_command_is_an_object_on_stdout(frazil, tiny_model):
    job = frazil.write_job(job_of(tiny_model, **{"spec.model.uri": "no-such-model"}))
    ended = frazil("run", job, "--json")
    error = json.loads(ended.stdout)["error"]
    assert (error["exitCode"], error["field"]) == (78, "spec.model.uri")
    assert "error:" in ended.stderr


def test_debug_shows_the_traceback_above_the_message(frazil):
    ended = frazil("run", "none.yaml", "--debug")
    assert "Traceback" in ended.stderr
    assert ended.stderr.index("Traceback") < ended.stderr.index("error:")


@pytest.mark.parametrize(
    ("access_key", "secret_key"),
    [("frazil-test", "s3cr3t-of-nobody"), ("unknown", "frazil-test-secret")],
    ids=["a wrong secret", "an unknown key"],
)
def test_wrong_credentials_name_the_variables_and_show_no_secret(frazil, tiny_model, s3_server, access_key, secret_key):
    s3_server.bucket("denied")
    frazil.env = {"FRAZIL_S3_ACCESS_KEY": access_key, "FRAZIL_S3_SECRET_KEY": secret_key}
    ended = frazil(
        "run", frazil.write_job(job_of(tiny_model)), "--store", "s3://denied/x", "--endpoint", s3_server.endpoint
    )
    assert ended.returncode == 78, ended.stderr
    assert "FRAZIL_S3_SECRET_KEY" in ended.stderr
    assert secret_key not in ended.stderr.replace("FRAZIL_S3_SECRET_KEY", "")


def test_a_store_that_does_not_answer_is_tried_again_later(frazil, tiny_model):
    frazil.env = {"FRAZIL_S3_ACCESS_KEY": "a", "FRAZIL_S3_SECRET_KEY": "b"}
    job = frazil.write_job(job_of(tiny_model))
    ended = frazil("run", job, "--store", "s3://bucket", "--endpoint", "http://127.0.0.1:9")
    assert ended.returncode == 75, ended.stderr
    assert "127.0.0.1:9" in ended.stderr


@pytest.mark.slow
def test_a_scheduler_that_the_model_cannot_use_is_found_before_weights(frazil, tiny_model):
    job = frazil.write_job(job_of(tiny_model, **{"spec.sampling.scheduler": "FlowMatchEulerDiscreteScheduler"}))
    ended = frazil("run", job)
    assert ended.returncode == 78, ended.stderr
    assert "spec.sampling.scheduler" in ended.stderr
    assert ended.stderr.count("error:") == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_row_that_the_pipeline_cannot_take_costs_its_own_shard_alone(frazil, tiny_model):
    rows = [{"prompt": "one"}, {"prompt": "two", "extra": {"no_such_argument": 1}}, {"prompt": "three"}]
    (frazil.folder / "rows.jsonl").write_text(lines(*rows))
    job = frazil.write_job(
        job_of(tiny_model, **{"spec.prompts": {"uri": "rows.jsonl", "perShard": 1}, "spec.imagesPerPrompt": 1})
    )
    ended = frazil("run", job, "--store", frazil.store, "--ranks", "1")
    assert ended.returncode == 65, ended.stderr
    assert "no_such_argument" in ended.stderr
    assert sorted(frazil.stored()) == ["000000-00.png", "000002-00.png"]
