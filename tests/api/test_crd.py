"""The generated CRDs: golden, structural, taught, and every rule tried with an object that breaks it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from crd_server import admit, default_problems, every_schema
from job_cases import CREATE, MAY_CHANGE, MINIMAL, PATTERNS, STRUCTURE, UNBREAKABLE, UPDATE, VALID, Case, changed

from frazil_jobs.api import base, docs
from frazil_jobs.api import crd as generator
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import job_of
from frazil_jobs.api.rules import violations
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration

CRDS = {kind.__name__: generator.crd(kind) for kind in (GenerationJob, TrainingJob)}
SCHEMAS = {kind: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind, crd in CRDS.items()}


def path_of(problem: str) -> str:
    """The object that a problem is about: spec.model.lora[]."""
    return re.sub(r"\[\d+\]", "[]", problem.split(": ")[0]).lstrip(".")


def name_of(case: Any) -> str:
    return f"{case.kind}-{case.message}" if isinstance(case, Case) else ""


@pytest.mark.parametrize("document", VALID.values(), ids=VALID)
def test_a_valid_object_is_admitted_by_the_crd_and_by_the_types(document: dict[str, Any]) -> None:
    assert admit(CRDS[document["kind"]], document) == []
    assert job_of(document).kind == document["kind"]


@pytest.mark.parametrize("case", CREATE, ids=name_of)
def test_an_object_that_breaks_one_rule_is_refused_by_both_in_the_same_words(case: Case) -> None:
    bad = changed(MINIMAL[case.kind], case.changes)
    (problem,) = admit(CRDS[case.kind], bad)
    assert case.message in problem
    assert path_of(problem) == case.path
    with pytest.raises(BadConfiguration) as caught:
        job_of(bad)
    _, _, said = problem.partition(": ")
    assert str(caught.value).endswith(said.split(": ", 1)[-1])
    assert re.sub(r"\[\d+\]", "[]", str(caught.value.field)).startswith(case.path)


@pytest.mark.parametrize("case", UPDATE, ids=name_of)
def test_a_change_of_what_is_immutable_is_refused_by_both(case: Case) -> None:
    before, after = MINIMAL[case.kind], changed(MINIMAL[case.kind], case.changes)
    (problem,) = admit(CRDS[case.kind], after, before)
    assert case.message in problem
    assert path_of(problem) == case.path
    (violation,) = violations(job_of(after), job_of(before))
    assert violation.path == case.path


@pytest.mark.parametrize(("kind", "changes"), MAY_CHANGE, ids=str)
def test_what_may_change_while_a_job_runs_is_admitted(kind: str, changes: dict[str, Any]) -> None:
    before, after = MINIMAL[kind], changed(MINIMAL[kind], changes)
    assert admit(CRDS[kind], after, before) == []
    assert violations(job_of(after), job_of(before)) == []


@pytest.mark.parametrize("document", VALID.values(), ids=VALID)
def test_an_object_that_is_applied_again_is_no_change(document: dict[str, Any]) -> None:
    assert admit(CRDS[document["kind"]], document, document) == []
    assert violations(job_of(document), job_of(document)) == []


@pytest.mark.parametrize(("kind", "changes"), STRUCTURE, ids=str)
def test_what_the_structure_refuses_is_refused_by_both(kind: str, changes: dict[str, Any]) -> None:
    bad = changed(MINIMAL[kind], changes)
    assert admit(CRDS[kind], bad)
    with pytest.raises(BadConfiguration):
        job_of(bad)


@pytest.mark.parametrize("kind", CRDS)
def test_every_rule_of_the_crd_has_an_object_that_breaks_it(kind: str) -> None:
    tried = [case for case in (*CREATE, *UPDATE) if case.kind == kind]
    for path, node in every_schema(SCHEMAS[kind]):
        for rule in node.get("x-kubernetes-validations", []):
            if any(k == kind and f".{p}" == path and m in rule["message"] for k, p, m in UNBREAKABLE):
                continue
            assert any(f".{case.path}".rstrip(".") == path and case.message in rule["message"] for case in tried), (
                path,
                rule,
            )


@pytest.mark.parametrize("kind", CRDS)
def test_defaults_keep_the_rules_before_defaults_within_them_are_filled_in(kind: str) -> None:
    """The API server refuses a CRD whose default for a part breaks a rule of it as it stands: `default: {}` mostly does."""
    assert default_problems(SCHEMAS[kind]) == []


@pytest.mark.parametrize("kind", CRDS)
def test_the_defaults_of_the_crd_are_those_of_the_types(kind: str) -> None:
    for path, node in every_schema(SCHEMAS[kind]["properties"]["spec"]):
        for name, field in node.get("properties", {}).items():
            if "default" in field and field["type"] == "object":
                for inner, value in field["default"].items():
                    assert field["properties"][inner]["default"] == value, f"{path}.{name}.{inner}"


@pytest.mark.parametrize("kind", CRDS)
def test_the_schema_is_structural_and_every_field_teaches(kind: str) -> None:
    for path, node in every_schema(SCHEMAS[kind]):
        assert not {"$ref", "anyOf", "oneOf", "allOf", "title", "const", "nullable", "definitions"} & node.keys(), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        if path not in ("", ".metadata") and not path.endswith("[]"):
            text = node.get("description", "")
            assert len(text) >= 5, f"{path} teaches nothing"
            assert text.endswith("."), path
            assert "{{" not in text, f"{path}: Helm would read it"
        if "x-kubernetes-preserve-unknown-fields" in node:
            assert path.endswith((".extra", ".affinity")), path
        if node.get("type") == "object" and path not in ("", ".metadata"):
            described = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
            assert len(described & node.keys()) == 1, path


@pytest.mark.parametrize("kind", CRDS)
def test_a_description_says_what_is_left_out_means(kind: str) -> None:
    """An optional field of the spec without a default says what happens without it."""
    for path, node in every_schema(SCHEMAS[kind]["properties"]["spec"], "spec"):
        for name, field in node.get("properties", {}).items():
            if name in node.get("required", []) or "default" in field or field.get("type") in ("array", "object"):
                continue
            told = ("left out", "only with", "exactly one", "at most one", "with neither", "for effect", "for operator")
            text = f"{field['description']} {node['description']}".lower()
            assert any(words in text for words in told), f"{path}.{name}: {field['description']}"


@pytest.mark.parametrize("kind", CRDS)
def test_rules_see_bounded_lists_maps_and_texts(kind: str) -> None:
    """The API server refuses a CRD whose rules could cost too much: everything that a rule reads has a bound."""
    for path, node in every_schema(SCHEMAS[kind]["properties"]["spec"], ".spec"):
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if node.get("type") == "object" and "additionalProperties" in node:
            assert "maxProperties" in node, path
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path
        if node.get("type") == "integer":
            assert {"minimum", "maximum"} <= node.keys(), path
        if "maximum" in node:
            assert node["maximum"] <= 2**53, f"{path}: the API server compares limits as floating-point numbers"


def test_every_pattern_says_in_words_what_it_takes_and_has_examples() -> None:
    for schema in SCHEMAS.values():
        for path, node in every_schema(schema["properties"]["spec"], ".spec"):
            if "pattern" in node:
                assert node["pattern"] in base.PATTERN_WORDS, path
                assert node["pattern"] in PATTERNS, path


@pytest.mark.parametrize(("pattern", "taken", "refused"), [(p, *texts) for p, texts in PATTERNS.items()], ids=PATTERNS)
def test_a_pattern_takes_and_refuses_its_examples(pattern: str, taken: list[str], refused: list[str]) -> None:
    from typing import Annotated

    from pydantic import Field, TypeAdapter, ValidationError

    adapter = TypeAdapter(Annotated[str, Field(pattern=pattern)])
    for text in taken:
        assert adapter.validate_python(text) == text
    for text in refused:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)


def test_generation_jobs_scale_and_training_jobs_do_not() -> None:
    generation, training = (
        CRDS[kind]["spec"]["versions"][0]["subresources"] for kind in ("GenerationJob", "TrainingJob")
    )
    assert generation["scale"]["specReplicasPath"] == ".spec.workers.replicas"
    assert "scale" not in training
    assert "replicas" not in SCHEMAS["TrainingJob"]["properties"]["spec"]["properties"]["workers"]["properties"]


@pytest.mark.parametrize("kind", CRDS)
def test_columns_selectable_fields_and_scale_point_at_fields_that_exist(kind: str) -> None:
    version = CRDS[kind]["spec"]["versions"][0]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version["selectableFields"]]
    paths += list(version["subresources"].get("scale", {}).values())
    known = {path for path, _ in every_schema(SCHEMAS[kind])} | {".metadata.creationTimestamp"}
    for path in paths:
        assert path.partition("[?")[0] in known, path


@pytest.mark.parametrize("kind", CRDS)
def test_the_status_is_of_constant_size(kind: str) -> None:
    for path, node in every_schema(SCHEMAS[kind]["properties"]["status"], ".status"):
        assert node.get("maxItems", 0) <= 16, path
        assert "additionalProperties" not in node, path
        assert node.get("type") != "string" or "enum" in node or "maxLength" in node, path
    conditions = SCHEMAS[kind]["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["required"]) == {"type", "status", "lastTransitionTime", "reason"}


def test_the_crds_in_the_chart_and_the_reference_are_what_the_types_say() -> None:
    for name, text in generator.texts().items():
        assert (generator.FOLDER / name).read_text() == text, "run `make generated`"
        assert yaml.safe_load(text)["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert (docs.FOLDER / "api.md").read_text() == docs.reference(), "run `make generated`"


def test_a_stale_file_is_found_and_named(tmp_path, capsys) -> None:
    assert generator.write_or_check(tmp_path, {"a.yaml": "x"}, check=True) == 1
    assert "a.yaml is stale" in capsys.readouterr().err
    assert generator.write_or_check(tmp_path, {"a.yaml": "x"}, check=False) == 0
    assert generator.write_or_check(tmp_path, {"a.yaml": "x"}, check=True) == 0


def test_the_reference_has_a_table_for_every_part_and_every_field() -> None:
    page = docs.reference()
    for schema in SCHEMAS.values():
        for section in ("spec", "status"):
            for path, node in every_schema(schema["properties"][section], section):
                if "properties" in node:
                    assert f"### `{path}`" in page
                    for name in node["properties"]:
                        assert f"| `{name}` |" in page, f"{path}.{name}"
