"""Reading a job file: every mistake names its field and the way out, and the types refuse what the API server refuses."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from crd_server import admit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_cases import MINIMAL as MINIMAL_JOBS
from job_cases import VALID, random_job, repaired

from frazil_jobs.api import crd as generator
from frazil_jobs.api.base import ApiModel, Rule
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import job_of, load_job
from frazil_jobs.api.rules import violations
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import CONFIG, BadConfiguration

EXAMPLES = Path(__file__).parents[2] / "examples"
CRDS = {kind.__name__: generator.crd(kind) for kind in (GenerationJob, TrainingJob)}
KINDS = {"GenerationJob": GenerationJob, "TrainingJob": TrainingJob}
MINIMAL = """
apiVersion: frazil.dev/v1alpha1
kind: GenerationJob
metadata: {name: pictures}
spec:
  model: {uri: hf://org/model}
  prompts: {inline: [a red ring]}
"""


def job_files() -> list[Path]:
    return sorted(path for path in EXAMPLES.rglob("*.yaml") if "kind: " in path.read_text())


@pytest.mark.parametrize("path", job_files(), ids=lambda path: path.name)
def test_every_example_is_a_valid_job(path: Path) -> None:
    assert load_job(path).metadata.name
    assert admit(CRDS[load_job(path).kind], yaml.safe_load(path.read_text())) == []


def test_there_are_examples() -> None:
    assert len(job_files()) >= 5


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["0 documents"]),
        ("{", ["not YAML"]),
        ("- 1", ["not a mapping"]),
        ("5", ["not a mapping"]),
        (MINIMAL + "---" + MINIMAL, ["2 documents", "a file of its own"]),
        (MINIMAL.replace("v1alpha1", "v1"), ["apiVersion", "frazil.dev/v1alpha1"]),
        (MINIMAL.replace("GenerationJob", "GenerationJobs"), ["kind", "GenerationJob"]),
        (MINIMAL.replace("hf://org/model}", "hf://org/model, revison: main}"), ["spec.model.revison", "'revision'"]),
        (MINIMAL + "  zzz: 1", ["spec.zzz: unknown field", "there is", "sampling"]),
        (MINIMAL + "  sampling: {guidanceScale: 5.0}", ["spec.sampling.guidanceScale", 'quotes: "5.0"']),
        (MINIMAL + "  sampling: {guidanceScale: '-1'}", ["spec.sampling.guidanceScale", "a decimal number", '"5.0"']),
        (MINIMAL + "  sampling: {steps: 0}", ["spec.sampling.steps", "greater than or equal to 1", "it is 0"]),
        (MINIMAL + "  sampling: {steps: '20'}", ["spec.sampling.steps", "whole number, without quotes", "'20'"]),
        (MINIMAL + "  sampling: {steps: true}", ["spec.sampling.steps", "whole number"]),
        (MINIMAL + "  sampling: {seed: 1, seed: 2}", ["'seed' is there twice", "line 8"]),
        (MINIMAL + "  sampling: {scheduler: euler}", ["spec.sampling.scheduler", "EulerDiscreteScheduler"]),
        (MINIMAL + "  sampling: {extra: {1: 2}}", ["spec.sampling.extra", "key 1 is not text", '"1"']),
        (MINIMAL + "  sampling: {extra: {a: .nan}}", ["spec.sampling.extra.a", "no number"]),
        (MINIMAL + "  sampling: {extra: {a: 99999999999999999999}}", ["spec.sampling.extra.a", "64 bits", "smaller"]),
        (MINIMAL.replace("[a red ring]", "[]"), ["spec.prompts.inline: is empty", "at least 1"]),
        (MINIMAL + "  sampling: {extra: !!binary aGVsbG8=}", ["spec.sampling.extra", "bytes"]),
        (MINIMAL + '  sampling: {extra: {a: "\\ud800"}}', ["spec.sampling.extra.a", "half a character"]),
        (MINIMAL + "  sampling: &a {extra: {b: *a}}", ["nested too deep"]),
        (MINIMAL + "  sampling: !!python/object:os.system {}", ["not YAML"]),
        (MINIMAL + "  suspend: 'yes'", ["spec.suspend", "true or false", "'yes'"]),
        (MINIMAL + "  workers: []", ["spec.workers", "must be a mapping"]),
        (MINIMAL + "  workers: {resources: {limits: {cpu: 1.5}}}", ["spec.workers.resources.limits.cpu", '"1.5"']),
        (MINIMAL + "  workers: {resources: {limits: {cpu: -1}}}", ["spec.workers.resources.limits.cpu: should be"]),
        (MINIMAL + "  workers: {resources: {limits: {cpu: x}}}", ["limits.cpu: is 'x'", "500m"]),
        (MINIMAL + "  parallelism: {mode: exact}", ["spec.parallelism.mode", "'Exact'", "did you mean"]),
        (MINIMAL + "  parallelism: {conditioning: 1}", ["spec.parallelism", "gpusPerNode"]),
        (MINIMAL + "  output: {prefix: ../x}", ["spec.output.prefix", "without .."]),
        (MINIMAL.replace("name: pictures", "name: Pictures"), ["metadata.name", "lower-case"]),
        (MINIMAL.replace("name: pictures", "name: p, namespace: ../x"), ["metadata.namespace", "lower-case"]),
        (MINIMAL.replace("name: pictures", "namespace: x"), ["metadata.name", "required"]),
        (MINIMAL.replace("  prompts: {inline: [a red ring]}\n", ""), ["spec.prompts", "required"]),
        (MINIMAL.replace("hf://org/model", "gs://x"), ["spec.model.uri", "hf://"]),
        ("x: [" * 300 + "]" * 300, ["the job"]),
        ("[" * 5000, ["not YAML"]),
    ],
)
def test_a_mistake_names_its_field_and_the_way_out(text: str, parts: list[str]) -> None:
    with pytest.raises(BadConfiguration) as caught:
        load_job(text)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.exit_code == CONFIG
    assert len(str(caught.value)) < 1500


def test_all_problems_are_told_at_once_those_of_structure_and_those_of_rules() -> None:
    with pytest.raises(BadConfiguration) as caught:
        load_job(
            MINIMAL
            + """
  sampling: {steps: 0, seeds: 1}
  parallelism: {pipeline: 2}
  workers: {minReplicas: 2}
  output: {format: gif}
"""
        )
    said = str(caught.value)
    assert "5 problems" in said
    fields = ("sampling.steps", "sampling.seeds", "parallelism.pipeline", "workers.minReplicas", "output.format")
    for field in fields:
        assert said.count(f"spec.{field}: ") == 1


def test_one_problem_carries_its_field_and_its_remedy() -> None:
    with pytest.raises(BadConfiguration) as caught:
        load_job(MINIMAL + "  sampling: {stepz: 5}")
    assert caught.value.field == "spec.sampling.stepz"
    assert caught.value.remedy == "did you mean 'steps'?"


def test_null_is_the_same_as_not_set() -> None:
    text = MINIMAL + "  suspend: ~\n  sampling: {steps: null, seed: ~}\n  workers:\n  output: {gallery: null}\n"
    assert load_job(text) == load_job(MINIMAL)


def test_null_within_free_form_arguments_is_kept() -> None:
    job = load_job(MINIMAL + "  sampling: {extra: {a: null, b: {c: null}}}")
    assert isinstance(job, GenerationJob)
    assert job.spec.sampling.extra == {"a": None, "b": {"c": None}}


def test_text_that_looks_like_a_date_stays_text() -> None:
    job = load_job(MINIMAL.replace("hf://org/model}", "hf://org/model, revision: 2026-01-01}"))
    assert job.spec.model.revision == "2026-01-01"


def test_merged_mappings_are_not_taken_for_keys_that_are_there_twice() -> None:
    text = MINIMAL + "  sampling: &a {steps: 5, seed: 1}\n"
    job = load_job(text.replace("steps: 5", "extra: {x: &x {a: 1}, y: &y {<<: *x, a: 2}, z: {<<: *y, a: 3}}"))
    assert isinstance(job, GenerationJob)
    assert job.spec.sampling.extra == {"x": {"a": 1}, "y": {"a": 2}, "z": {"a": 3}}


def test_an_object_as_the_api_server_returns_it_is_read() -> None:
    metadata = {
        "name": "pictures",
        "namespace": "team",
        "uid": "0f4c9c0e-6f0a-4e7a-9d9e-0c2f6a3b1d11",
        "creationTimestamp": "2026-11-23T10:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    }
    status = {"phase": "Running", "somethingNew": 1, "workers": {"desired": 1}}
    job = job_of({**MINIMAL_JOBS["GenerationJob"], "metadata": metadata, "status": status})
    assert job.metadata.uid == metadata["uid"]
    assert job.status is not None
    assert job.status.phase == "Running"


def test_a_file_that_is_not_there_or_not_text_or_too_large_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"nothing\.yaml can't be read"):
        load_job(tmp_path / "nothing.yaml")
    (tmp_path / "raw.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfiguration, match="UTF-8"):
        load_job(tmp_path / "raw.yaml")
    (tmp_path / "large.yaml").write_text("a" * (5 << 20))
    with pytest.raises(BadConfiguration, match="larger"):
        load_job(tmp_path / "large.yaml")


@pytest.mark.parametrize("document", VALID.values(), ids=VALID)
def test_a_valid_job_survives_writing_and_reading(document: dict[str, Any]) -> None:
    job = job_of(document)
    written = yaml.safe_dump(job.model_dump(mode="json", by_alias=True), allow_unicode=True)
    assert load_job(written) == job


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_valid_job_survives_writing_and_reading(kind: str, seed: int) -> None:
    document = repaired(random_job(kind, _schema(kind), seed))
    assert admit(CRDS[kind], document) == []
    job = job_of(document)
    assert load_job(yaml.safe_dump(job.model_dump(mode="json", by_alias=True), allow_unicode=True)) == job


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32), st.sampled_from([0.0, 0.01]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_types_and_crd_refuse_the_same_jobs_for_the_same_rules(kind: str, seed: int, wrong: float) -> None:
    document = random_job(kind, _schema(kind), seed, wrong=wrong)
    problems = set(admit(CRDS[kind], document))
    try:
        job_of(document)
        said = ""
    except BadConfiguration as error:
        said = str(error)
    assert bool(problems) == bool(said), (problems, said)
    for message in {rule["message"] for rule in _rules(kind)}:
        if any(problem.endswith(f": {message}") for problem in problems):
            assert message.split(": ", 1)[-1] in said, (message, said)


words = st.text(min_size=1, max_size=20)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | words | st.binary(max_size=3) | st.dates()
junk = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))


@given(st.sampled_from(sorted(VALID)), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_mutated_job_is_read_or_refused_and_never_crashes(sentence: str, data: st.DataObject) -> None:
    document = yaml.safe_load(yaml.safe_dump(VALID[sentence]))
    place: Any = document
    while place:
        keys = range(len(place)) if isinstance(place, list) else sorted(place)
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            place[key] = data.draw(junk)
            break
        place = place[key]
    with contextlib.suppress(BadConfiguration):
        assert job_of(document).kind in KINDS


@given(st.text() | st.text("{}[]&*!|>'\"%@`:-,?#\n\t ab1~<", max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused_and_never_crashes(text: str) -> None:
    for source in (text, MINIMAL + "  sampling: " + text):
        with contextlib.suppress(BadConfiguration):
            assert load_job(source).kind in KINDS


def test_a_change_within_a_part_that_was_not_there_is_no_transition() -> None:
    """As on the API server: a transition rule needs both, so rules on what may appear stand on the parent."""
    before, after = (
        load_job(MINIMAL),
        load_job(MINIMAL + "  failurePolicy: {rules: [{onExitCodes: [1], action: Count}]}"),
    )
    assert violations(after, before) == []


def test_a_rule_that_can_not_be_evaluated_does_not_hold() -> None:
    class Odd(ApiModel):
        RULES = (Rule("1 / self.zero == 1", "says nothing", "zero"),)
        zero: int = 0

    assert [str(violation) for violation in violations(Odd())] == ["zero: says nothing"]


def test_reading_a_job_loads_neither_torch_nor_a_broker_and_cel_only_when_rules_are_tried() -> None:
    code = (
        "import sys, frazil_jobs.api.load, frazil_jobs.api.crd, frazil_jobs.api.conditions, frazil_jobs.api.phase\n"
        "print(sorted({'torch', 'celpy', 'celery', 'redis', 'minio', 'numpy'} & sys.modules.keys()))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"


def _schema(kind: str) -> dict[str, Any]:
    return CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _rules(kind: str) -> list[dict[str, str]]:
    from crd_server import every_schema

    return [rule for _, node in every_schema(_schema(kind)) for rule in node.get("x-kubernetes-validations", [])]
