"""The generated CRDs: golden, structural, taught, and every rule tried with an object that breaks it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from crd_server import admit, every_schema

from frazil_jobs.api import crd as generator
from frazil_jobs.api import docs
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import job_of
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration

CRDS = {kind.__name__: generator.crd(kind) for kind in (GenerationJob, TrainingJob)}

GENERATION: dict[str, Any] = {
    "apiVersion": "frazil.dev/v1alpha1",
    "kind": "GenerationJob",
    "metadata": {"name": "pictures"},
    "spec": {"model": {"uri": "hf://org/model"}, "prompts": {"inline": ["a red ring"]}},
}
TRAINING: dict[str, Any] = {
    "apiVersion": "frazil.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "lessons"},
    "spec": {
        "task": "CausalLM",
        "model": {"uri": "hf://org/model"},
        "dataset": {"uri": "hf://datasets/org/text"},
        "steps": 100,
    },
}
VALID = {"GenerationJob": GENERATION, "TrainingJob": TRAINING}


def changed(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with values set (None: removed) at dotted paths."""
    result = copy.deepcopy(base)
    for path, value in changes.items():
        *folders, last = path.split(".")
        place = result
        for folder in folders:
            place = place.setdefault(folder, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return result


# (kind, part of the message, what to change in a valid object so that just this rule breaks)
CREATE = [
    ("GenerationJob", "at most 40 characters", {"metadata.name": "x" * 41}),
    ("GenerationJob", "set exactly one of inline", {"spec.prompts.uri": "s3://b/p.jsonl"}),
    ("GenerationJob", "set exactly one of inline", {"spec.prompts.inline": None}),
    ("GenerationJob", "claimName or sizeLimit", {"spec.model.cache": {"claimName": "a", "sizeLimit": "1Gi"}}),
    ("GenerationJob", "must not exceed replicas", {"spec.workers.minReplicas": 2}),
    ("GenerationJob", "mode Exact has none", {"spec.parallelism.pipeline": 2, "spec.workers.gpusPerNode": 4}),
    (
        "GenerationJob",
        "Hybrid begins from the condition split",
        {"spec.parallelism": {"mode": "Hybrid", "conditioning": 1}, "spec.workers.gpusPerNode": 1},
    ),
    ("GenerationJob", "must equal workers.nodesPerReplica", {"spec.workers.gpusPerNode": 3}),
    (
        "GenerationJob",
        "combined with gang: Required",
        {"spec.scheduling.gang": "Required", "spec.workers.minReplicas": 1},
    ),
    ("GenerationJob", "frames are for output.format", {"spec.sampling.frames": 9}),
    ("GenerationJob", "at least 15 steps", {"spec.parallelism.mode": "Guided", "spec.sampling.steps": 14}),
    ("GenerationJob", "set exactly one of configMap", {"spec.workers.template.volumes": [{"name": "v"}]}),
    ("TrainingJob", "at most 40 characters", {"metadata.name": "x" * 41}),
    ("TrainingJob", "claimName or sizeLimit", {"spec.model.cache": {"claimName": "a", "sizeLimit": "1Gi"}}),
    ("TrainingJob", "fewer microbatches than", {"spec.parallelism.microbatches": 1, "spec.batchSize": 64}),
    ("TrainingJob", "must equal workers.nodesPerReplica", {"spec.parallelism.data": 2}),
    (
        "TrainingJob",
        "freezing needs at least two",
        {"spec.parallelism.pipeline": 1, "spec.workers.gpusPerNode": 1},
    ),
    ("TrainingJob", "must be a multiple of", {"spec.batchSize": 63}),
    ("TrainingJob", "between 0 and 1", {"spec.freezing.maxFreezeRatio": "1.01"}),
    ("TrainingJob", "greater than 0", {"spec.optimizer.learningRate": "0"}),
    ("TrainingJob", "set exactly one of configMap", {"spec.workers.template.volumes": [{"name": "v"}]}),
]
UPDATE = [
    ("GenerationJob", "model is immutable", {"spec.model.revision": "abc"}),
    ("GenerationJob", "prompts are immutable", {"spec.prompts.perShard": 8}),
    ("GenerationJob", "sampling is immutable", {"spec.sampling.seed": 1}),
    ("GenerationJob", "parallelism is immutable", {"spec.parallelism.whenUnguided": "OneRank"}),
    ("GenerationJob", "output is immutable", {"spec.output.format": "webp"}),
    ("GenerationJob", "only replicas and minReplicas may change", {"spec.workers.image": "other"}),
    ("GenerationJob", "managedBy: is immutable", {"spec.managedBy": "kueue.x-k8s.io/multikueue"}),
    ("GenerationJob", "imagesPerPrompt: is immutable", {"spec.imagesPerPrompt": 2}),
    ("TrainingJob", "model is immutable", {"spec.model.revision": "abc"}),
    ("TrainingJob", "dataset is immutable", {"spec.dataset.split": "all"}),
    ("TrainingJob", "optimizer is immutable", {"spec.optimizer.weightDecay": "0.1"}),
    ("TrainingJob", "parallelism is immutable", {"spec.parallelism.schedule": "ZBH1"}),
    ("TrainingJob", "freezing is immutable", {"spec.freezing.method": "None"}),
    ("TrainingJob", "output is immutable", {"spec.output.report": False}),
    ("TrainingJob", "steps: may only grow", {"spec.steps": 99}),
    ("TrainingJob", "workers: are immutable", {"spec.workers.image": "other"}),
    ("TrainingJob", "task: is immutable", {"spec.task": "DiffusionTransformer"}),
    ("TrainingJob", "batchSize: is immutable", {"spec.batchSize": 128}),
    ("TrainingJob", "accumulation: is immutable", {"spec.accumulation": 2}),
    ("TrainingJob", "seed: is immutable", {"spec.seed": 1}),
    ("TrainingJob", "managedBy: is immutable", {"spec.managedBy": "kueue.x-k8s.io/multikueue"}),
]


@pytest.mark.parametrize("kind", CRDS)
def test_a_minimal_object_is_admitted_by_the_crd_and_by_the_types(kind: str) -> None:
    assert admit(CRDS[kind], VALID[kind]) == []
    assert job_of(VALID[kind]).kind == kind


@pytest.mark.parametrize(("kind", "message", "changes"), CREATE)
def test_an_object_that_breaks_one_rule_is_refused_by_both_in_the_same_words(
    kind: str, message: str, changes: dict[str, Any]
) -> None:
    bad = changed(VALID[kind], changes)
    problems = admit(CRDS[kind], bad)
    assert len(problems) == 1, problems
    assert message in problems[0]
    with pytest.raises(BadConfiguration, match=message.split("(")[0]):
        job_of(bad)


@pytest.mark.parametrize(("kind", "message", "changes"), UPDATE)
def test_a_change_of_what_is_immutable_is_refused(kind: str, message: str, changes: dict[str, Any]) -> None:
    problems = admit(CRDS[kind], changed(VALID[kind], changes), VALID[kind])
    assert len(problems) == 1, problems
    assert message in problems[0]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("GenerationJob", {"spec.workers.replicas": 7, "spec.suspend": True}),
        ("GenerationJob", {"spec.ttlSecondsAfterFinished": 5}),
        ("TrainingJob", {"spec.steps": 1000}),
        ("TrainingJob", {"spec.suspend": True, "spec.checkpoint.everySteps": 7}),
    ],
)
def test_what_may_change_while_a_job_runs_is_admitted(kind: str, changes: dict[str, Any]) -> None:
    assert admit(CRDS[kind], changed(VALID[kind], changes), VALID[kind]) == []


@pytest.mark.parametrize("kind", CRDS)
def test_every_rule_of_the_crd_has_an_object_that_breaks_it(kind: str) -> None:
    tried = [message for case_kind, message, _ in (*CREATE, *UPDATE) if case_kind == kind]
    schema = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in every_schema(schema):
        for rule in node.get("x-kubernetes-validations", []):
            assert any(message in rule["message"] for message in tried), (path, rule)


@pytest.mark.parametrize("kind", CRDS)
def test_the_schema_is_structural_and_every_field_teaches(kind: str) -> None:
    schema = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in every_schema(schema):
        assert not {"$ref", "anyOf", "oneOf", "allOf", "title", "const", "nullable", "definitions"} & node.keys(), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        if path not in ("", ".metadata") and not path.endswith("[]"):
            assert len(node.get("description", "")) >= 5, f"{path} teaches nothing"
        if "x-kubernetes-preserve-unknown-fields" in node:
            assert path.endswith((".extra", ".affinity")), path


@pytest.mark.parametrize("kind", CRDS)
def test_rules_see_bounded_lists_maps_and_texts(kind: str) -> None:
    """The API server refuses a CRD whose rules could cost too much: everything that a rule reads has a bound."""
    schema = CRDS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in every_schema(schema["properties"]["spec"], ".spec"):
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if node.get("type") == "object" and "additionalProperties" in node:
            assert "maxProperties" in node, path
        if node.get("type") == "string" and "enum" not in node and not path.endswith("[]"):
            assert "maxLength" in node, path


def test_generation_jobs_scale_and_training_jobs_do_not() -> None:
    generation, training = (
        CRDS[kind]["spec"]["versions"][0]["subresources"] for kind in ("GenerationJob", "TrainingJob")
    )
    assert generation["scale"]["specReplicasPath"] == ".spec.workers.replicas"
    assert "scale" not in training
    assert (
        "replicas"
        not in CRDS["TrainingJob"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"][
            "properties"
        ]["workers"]["properties"]
    )


@pytest.mark.parametrize("kind", CRDS)
def test_columns_selectable_fields_and_scale_point_at_fields_that_exist(kind: str) -> None:
    version = CRDS[kind]["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version["selectableFields"]]
    paths += list(version["subresources"].get("scale", {}).values())
    known = {path for path, _ in every_schema(schema)} | {".metadata.creationTimestamp"}
    for path in paths:
        assert path.partition("[?")[0] in known, path


def test_the_crds_in_the_chart_and_the_reference_are_what_the_types_say() -> None:
    for name, text in generator.texts().items():
        assert (generator.FOLDER / name).read_text() == text, "run `make generated`"
        assert yaml.safe_load(text)["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert (docs.FOLDER / "api.md").read_text() == docs.reference(), "run `make generated`"


def test_the_published_method_can_be_written() -> None:
    spec = changed(
        TRAINING,
        {
            "spec.freezing": {
                "method": "Timely",
                "selection": "Uniform",
                "slackPercent": "0",
                "maxFreezeRatio": "0.8",
                "probe": "AllFrozen",
            },
            "spec.parallelism.partition": "Uniform",
        },
    )
    assert admit(CRDS["TrainingJob"], spec) == []
