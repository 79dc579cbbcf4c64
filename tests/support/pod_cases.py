"""Jobs with everything in them, and what a pod template is asked about in tests of what the operator builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operator_world import generation_job, pin, training_job

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_operator.build.children import config_map, gang_job, service, shards_job
from frazil_operator.build.labels import Owner
from frazil_operator.gang.placement import place_gang
from frazil_operator.settings import Settings, parse_settings

PLAIN = parse_settings({"destinations": [{"uri": "s3://frazil/results"}]})
FULL = parse_settings(
    {
        "destinations": [{"name": "archive", "uri": "s3://archive/frazil", "customCa": True}],
        "images": {"jobs": "registry/jobs@sha256:1", "worker": "registry/worker:2", "pullSecrets": ["registry"]},
        "computeEnv": {"FRAZIL_DEVICE": "cpu", "FRAZIL_THREADS": "1"},
        "environmentClaim": {"claimName": "environment", "mountPath": "/opt/venv", "python": "/opt/venv/bin/python"},
        "gracePeriodSeconds": 90,
        "nodeLostSeconds": 40,
        "allow": {"pickle": True, "remoteCode": True},
    }
)
TEMPLATE: dict[str, Any] = {
    "nodeSelector": {"pool": "a"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "labels": {"team": "snow"},
    "annotations": {"example.com/cost": "42"},
    "imagePullSecrets": [{"name": "own"}],
    "runtimeClassName": "nvidia",
    "env": [{"name": "NCCL_DEBUG", "value": "$(HOME)$x"}],
    "volumes": [
        {"name": "pictures", "persistentVolumeClaim": {"claimName": "pictures"}},
        {"name": "words", "configMap": {"name": "words"}},
        {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
    ],
    "volumeMounts": [
        {"name": "pictures", "mountPath": "/pictures"},
        {"name": "words", "mountPath": "/words", "readOnly": True},
        {"name": "scratch", "mountPath": "/scratch"},
    ],
}


def full_generation_job(**spec: Any) -> dict[str, Any]:
    """A GenerationJob that uses whatever changes its pods."""
    return generation_job(
        **{
            "model": {
                "uri": "pvc://weights/sdxl",
                "lora": [{"uri": "pvc://weights/lora"}, {"uri": "pvc://styles/ink", "scale": "0.5"}],
                "secretRef": {"name": "hub"},
                "cache": {"claimName": "cache"},
            },
            "prompts": {"configMapRef": {"name": "prompts", "key": "p.jsonl"}, "perShard": 4},
            "workers": {
                "replicas": 4,
                "minReplicas": 2,
                "gpusPerNode": 2,
                "resources": {"requests": {"cpu": 4}, "limits": {"memory": "64Gi"}},
                "sharedMemory": "2Gi",
                "template": TEMPLATE,
            },
            "scheduling": {"queueName": "gpus", "priorityClassName": "low", "topologyKey": "example.com/rack"},
            "failurePolicy": {
                "retriesPerShard": 2,
                "maxFailedShards": 1,
                "rules": [
                    {"action": "FailShard", "onExitCodes": [9, 7, 9]},
                    {"action": "Count", "onDisruption": True},
                ],
            },
            "output": {"destination": "archive", "prefix": "week-47"},
            **spec,
        }
    )


def full_training_job(**spec: Any) -> dict[str, Any]:
    """A TrainingJob that uses whatever changes its pods."""
    return training_job(
        **{
            "model": {"uri": "hf://org/model", "secretRef": {"name": "hub"}},
            "dataset": {"uri": "pvc://corpus/train"},
            "workers": {"nodesPerReplica": 2, "gpusPerNode": 1, "template": TEMPLATE},
            "scheduling": {"priorityClassName": "low", "topologyKey": "example.com/rack"},
            "output": {"destination": "archive"},
            **spec,
        }
    )


def shards(body: Mapping[str, Any], settings: Settings = PLAIN, **more: Any) -> list[dict[str, Any]]:
    """The children of a GenerationJob whose replica is one pod."""
    job, owner = GenerationJob.model_validate(body), Owner.of(body)
    found = {"attempt": 0, "pin": pin(), "parallelism": 3, **more}
    child = shards_job(job, owner, settings=settings, **found)
    return [config_map(job, owner, attempt=found["attempt"]), child]


def gang(
    body: Mapping[str, Any], settings: Settings = PLAIN, *, provider: str = "none", attempt: int = 0, **more: Any
) -> list[dict[str, Any]]:
    """The children of a job whose replica is a gang."""
    kind = GenerationJob if body["kind"] == "GenerationJob" else TrainingJob
    job, owner = kind.model_validate(body), Owner.of(body)
    name = owner.child_name(attempt, more.get("shard"))
    placement = place_gang(provider, job, owner, name=name, attempt=attempt)
    child = gang_job(
        job,
        owner,
        attempt=attempt,
        config_map=owner.child_name(attempt),
        settings=settings,
        placement=placement,
        **more,
    )
    objects = [config_map(job, owner, attempt=attempt), service(owner, attempt=attempt)]
    return [*objects, *(dict(thing) for thing in placement.objects), child]


def gang_of_a_shard(settings: Settings = PLAIN, *, provider: str = "none", **spec: Any) -> list[dict[str, Any]]:
    """The children of a GenerationJob of two-pod replicas, for its shard 2."""
    body = generation_job(workers={"nodesPerReplica": 2, "gpusPerNode": 1}, parallelism={"conditioning": 2}, **spec)
    return gang(body, settings, provider=provider, pin=pin(), shard=2, tries=1, restarts=4)


def every_case() -> dict[str, list[dict[str, Any]]]:
    """Name of a golden file: the objects in it, in the order in which they are applied."""
    one_pod = gang(training_job(workers={"gpusPerNode": 2}))
    rack = {"topologyKey": "example.com/rack"}
    return {
        "shards": shards(generation_job()),
        "shards-full": shards(full_generation_job(), FULL, attempt=3),
        "gang-of-a-shard": gang_of_a_shard(provider="native-v1beta1", scheduling=rack),
        "gang-of-a-shard-coscheduling": gang_of_a_shard(provider="coscheduling"),
        "training-one-pod": [one_pod[0], one_pod[-1]],
        "training": gang(training_job(), attempt=1, restarts=1),
        "training-full": gang(full_training_job(), FULL, provider="volcano"),
    }


ALL = every_case()


def pod_of(things: list[dict[str, Any]]) -> dict[str, Any]:
    """The spec of the pods of a case."""
    spec: dict[str, Any] = things[-1]["spec"]["template"]["spec"]
    return spec


def containers(spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The containers of a pod by name."""
    return {one["name"]: one for one in [*spec["initContainers"], *spec["containers"]]}


def env_of(container: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of a container: the text, or where it comes from."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def mounts_of(container: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """Path: the volume that is seen there, and whether it's read-only."""
    return {one["mountPath"]: (one["name"], one.get("readOnly", False)) for one in container["volumeMounts"]}
