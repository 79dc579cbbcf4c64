"""Jobs for the tests of the API: valid ones, one that breaks each rule, changes, and random ones drawn from a CRD's schema.

Tried against our types, against the offline judge of `crd_server.py`, and against Kubernetes' own code (`kubernetes_judge`).
"""

from __future__ import annotations

import copy
import random
from typing import Any, NamedTuple

from frazil_jobs.api import base

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
MINIMAL = {"GenerationJob": GENERATION, "TrainingJob": TRAINING}

TEMPLATE: dict[str, Any] = {
    "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}],
    "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}},
    "labels": {"team": "ice"},
    "annotations": {"note": "a: b"},
    "imagePullSecrets": [{"name": "registry.key"}],
    "schedulerName": "volcano",
    "runtimeClassName": "nvidia",
    "env": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "A"}],
    "volumes": [
        {"name": "a", "configMap": {"name": "c"}},
        {"name": "b", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "p", "readOnly": True}},
    ],
    "volumeMounts": [
        {"name": "a", "mountPath": "/etc/settings", "readOnly": True},
        {"name": "b", "mountPath": "/home/user/.cache"},
        {"name": "c", "mountPath": "/data", "subPath": "pictures/new"},
    ],
}


def changed(base_document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base_document` with values set (None: removed) at dotted paths."""
    result = copy.deepcopy(base_document)
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


VALID: dict[str, dict[str, Any]] = {
    "the least GenerationJob": GENERATION,
    "the least TrainingJob": TRAINING,
    "a GenerationJob with everything": changed(
        GENERATION,
        {
            "metadata": {"name": "a" * 40, "namespace": "team", "labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec.suspend": True,
            "spec.managedBy": "kueue.x-k8s.io/multikueue",
            "spec.model": {
                "uri": "s3://bucket/model",
                "revision": "0123abc",
                "variant": "fp16",
                "dtype": "float16",
                "pipeline": "WanPipeline",
                "lora": [{"uri": "lora", "weightName": "w.safetensors", "scale": "-0.5", "name": "style"}],
                "allowPickle": True,
                "allowRemoteCode": True,
                "secretRef": {"name": "hub.token"},
                "cache": {"claimName": "models"},
            },
            "spec.prompts": {"configMapRef": {"name": "prompts", "key": "p.csv"}, "format": "csv", "perShard": 4096},
            "spec.imagesPerPrompt": 1024,
            "spec.sampling": {
                "steps": 50,
                "guidanceScale": "5.0",
                "height": 480,
                "width": 832,
                "frames": 81,
                "framesPerSecond": 16,
                "scheduler": "UniPCMultistepScheduler",
                "seed": 2**32 - 1,
                "negativePrompt": "",
                "batchSize": 2,
                "extra": {"guidance_scale_2": 3.0, "nested": {"list": [1, "two", None, False]}},
            },
            "spec.parallelism": {
                "conditioning": 2,
                "pipeline": 2,
                "sequence": 2,
                "mode": "Guided",
                "whenUnguided": "OneRank",
                "timeoutSeconds": 1800,
                "compareWithExact": 2,
                "switching": {"budget": "inf", "predictorOrder": 2, "refreshEvery": 1},
            },
            "spec.workers": {
                "replicas": 4,
                "minReplicas": 4,
                "nodesPerReplica": 2,
                "gpusPerNode": 4,
                "accelerator": "nvidia.com/mig-3g.40gb",
                "image": "registry/jobs@sha256:0",
                "resources": {"requests": {"cpu": 8, "memory": "64Gi"}, "limits": {"cpu": "500m"}},
                "sharedMemory": "16Gi",
                "template": TEMPLATE,
            },
            "spec.scheduling": {
                "queueName": "team-queue",
                "priorityClassName": "high",
                "gang": "Auto",
                "topologyKey": "topology.kubernetes.io/rack",
            },
            "spec.failurePolicy": {
                "retriesPerShard": 0,
                "maxFailedShards": 0,
                "maxRestarts": 0,
                "rules": [{"onExitCodes": [1, 255], "action": "FailShard"}, {"onDisruption": True, "action": "Count"}],
            },
            "spec.successPolicy": {"minStoredPercent": 90},
            "spec.preRunningDeadlineSeconds": 600,
            "spec.activeDeadlineSeconds": 3600,
            "spec.ttlSecondsAfterFinished": 0,
            "spec.output": {
                "destination": "archive",
                "prefix": "team/run-1",
                "whenDeleted": "Delete",
                "format": "mp4",
                "gallery": False,
            },
        },
    ),
    "a TrainingJob with everything": changed(
        TRAINING,
        {
            "spec.task": "DiffusionTransformer",
            "spec.initialWeights": "Random",
            "spec.dataset": {
                "uri": "s3://bucket/pictures",
                "format": "webdataset",
                "split": "all",
                "validationSplit": "test",
                "columns": {"image": "jpg", "caption": "txt"},
                "imageSize": 64,
                "extra": {"shuffleBuffer": 1000},
            },
            "spec.batchSize": 64,
            "spec.accumulation": 2,
            "spec.precision": "float32",
            "spec.seed": 3,
            "spec.optimizer": {
                "name": "SGD",
                "learningRate": "0.1",
                "betas": ["0.9", "0"],
                "ema": "0.999",
                "clipNorm": "0",
            },
            "spec.parallelism": {
                "pipeline": 4,
                "data": 2,
                "schedule": "Interleaved1F1B",
                "microbatches": 8,
                "partition": "Uniform",
            },
            "spec.freezing": {"method": "AutoFreeze", "autoFreezePercentile": 99, "warmupSteps": 0},
            "spec.checkpoint": {"everySteps": 1, "keepLast": 1, "resume": "Never"},
            "spec.evaluation": {"everySteps": 0},
            "spec.workers": {"nodesPerReplica": 2, "gpusPerNode": 4, "template": TEMPLATE},
            "spec.scheduling": {"gang": "Required"},
            "spec.failurePolicy": {
                "maxRestartsWithoutProgress": 1,
                "rules": [{"onExitCodes": [137], "action": "FailJob"}],
            },
            "spec.output": {"report": False},
        },
    ),
    "the published Hybrid for SD3": changed(
        GENERATION,
        {
            "spec.parallelism": {
                "mode": "Hybrid",
                "switching": {"slopeWindowPercent": 30, "slopeThreshold": "0.005", "capPercent": 80},
            },
            "spec.sampling.steps": 50,
        },
    ),
    "Hybrid with as few steps as its window allows": changed(
        GENERATION, {"spec.parallelism.mode": "Hybrid", "spec.sampling.steps": 10}
    ),
    "Guided with as few steps as its forecast allows": changed(
        GENERATION, {"spec.parallelism.mode": "Guided", "spec.sampling.steps": 3}
    ),
    "the published TimelyFreeze, to the parameter": changed(
        TRAINING,
        {
            "spec.freezing": {
                "method": "Timely",
                "selection": "Uniform",
                "slackPercent": "0",
                "maxFreezeRatio": "0.8",
                "probe": "AllFrozen",
                "redrawEvery": 10,
                "replanDriftPercent": "0",
                "rescaleGradients": False,
            },
            "spec.parallelism.partition": "Uniform",
        },
    ),
    "plain training on one GPU": changed(
        TRAINING,
        {
            "spec.freezing": {"method": "None"},
            "spec.parallelism": {"pipeline": 1, "schedule": "GPipe"},
            "spec.workers.gpusPerNode": 1,
        },
    ),
}


class Case(NamedTuple):
    """A valid object, changed so that just one rule breaks."""

    kind: str
    path: str
    """The object that carries the rule."""
    message: str
    """A part of the rule's message."""
    changes: dict[str, Any]


G, T = "GenerationJob", "TrainingJob"
_VOLUME = [{"name": "v", "emptyDir": {}}]


def _pods(kind: str) -> list[Case]:
    workers, template = "spec.workers", "spec.workers.template"

    def case(path: str, message: str, **changes: Any) -> Case:
        return Case(kind, path, message, {f"{template}.{name}": value for name, value in changes.items()})

    two = [{"name": "A"}, {"name": "A"}]
    return [
        Case(kind, "", "at most 40 characters", {"metadata.name": "x" * 41}),
        Case(kind, "", "beginning with a letter", {"metadata.name": "7-dwarfs"}),
        Case(kind, "", "beginning with a letter", {"metadata.name": "a.b"}),
        Case(kind, "spec.model", "must be a path or begin with", {"spec.model.uri": "gs://bucket/model"}),
        Case(
            kind,
            "spec.model.cache",
            "claimName or sizeLimit",
            {"spec.model.cache": {"claimName": "a", "sizeLimit": "1Gi"}},
        ),
        Case(kind, workers, "ask for GPUs with", {f"{workers}.resources": {"limits": {"nvidia.com/gpu": 2}}}),
        Case(kind, workers, "ask for GPUs with", {f"{workers}.resources": {"requests": {"nvidia.com/gpu": 2}}}),
        Case(
            kind,
            "spec.failurePolicy.rules[]",
            "set exactly one of onExitCodes",
            {"spec.failurePolicy.rules": [{"action": "Count"}]},
        ),
        Case(
            kind,
            "spec.failurePolicy.rules[]",
            "set exactly one of onExitCodes",
            {"spec.failurePolicy.rules": [{"action": "Count", "onExitCodes": [1], "onDisruption": True}]},
        ),
        case(template, "labels below frazil.dev/", labels={"frazil.dev/job": "x"}),
        case(template, "annotations below frazil.dev/", annotations={"frazil.dev/job": "x"}),
        case(template, "two variables", env=two),
        case(template, "two volumes", volumes=_VOLUME * 2),
        case(template, "each must name one", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        case(template, "each must name one", volumes=_VOLUME, volumeMounts=[{"name": "w", "mountPath": "/v"}]),
        case(template, "two mounts", volumes=_VOLUME, volumeMounts=[{"name": "v", "mountPath": "/v"}] * 2),
        case(f"{template}.env[]", "begin with FRAZIL_", env=[{"name": "FRAZIL_SPOOL", "value": "/x"}]),
        case(f"{template}.volumes[]", "set exactly one of configMap", volumes=[{"name": "v"}]),
        case(
            f"{template}.volumes[]",
            "set exactly one of configMap",
            volumes=[{"name": "v", "emptyDir": {}, "configMap": {"name": "c"}}],
        ),
        case(f"{template}.volumes[]", "begin with frazil-", volumes=[{"name": "frazil-spool", "emptyDir": {}}]),
        *(
            case(
                f"{template}.volumeMounts[]",
                "are mounted by Frazil itself",
                volumes=_VOLUME,
                volumeMounts=[{"name": "v", "mountPath": place}],
            )
            for place in ("/frazil", "/frazil/spool", "/dev/shm", "/tmp")
        ),
    ]


CREATE = [
    *_pods(G),
    Case(G, "spec.model.lora[]", "must be a path or begin with", {"spec.model.lora": [{"uri": "ftp://x/y"}]}),
    Case(G, "spec.prompts", "set exactly one of inline", {"spec.prompts.uri": "s3://b/p.jsonl"}),
    Case(G, "spec.prompts", "set exactly one of inline", {"spec.prompts.inline": None}),
    Case(G, "spec.prompts", "begin with one of s3://", {"spec.prompts": {"uri": "hf://datasets/org/prompts"}}),
    Case(G, "spec.workers", "must not exceed replicas", {"spec.workers.minReplicas": 2}),
    Case(G, "spec.parallelism", "mode Exact has none", {"spec.parallelism.pipeline": 2, "spec.workers.gpusPerNode": 4}),
    Case(
        G,
        "spec.parallelism",
        "Hybrid begins from the condition split",
        {"spec.parallelism": {"mode": "Hybrid", "conditioning": 1}, "spec.workers.gpusPerNode": 1},
    ),
    Case(G, "spec.parallelism.switching", "must not exceed 100", {"spec.parallelism.switching.windowPercent": 71}),
    Case(G, "spec.parallelism.switching", "never be known", {"spec.parallelism.switching.slopeWindowPercent": 31}),
    Case(G, "spec", "must equal workers.nodesPerReplica", {"spec.workers.gpusPerNode": 3}),
    Case(G, "spec", "must equal workers.nodesPerReplica", {"spec.workers.nodesPerReplica": 2}),
    Case(
        G,
        "spec",
        "combined with gang: Required",
        {"spec.scheduling.gang": "Required", "spec.workers.minReplicas": 1},
    ),
    Case(G, "spec", "frames are for output.format", {"spec.sampling.frames": 9}),
    Case(G, "spec", "frames are for output.format", {"spec.sampling.frames": 9, "spec.output.format": "wav"}),
    Case(G, "spec", "a frame rate is for output.format", {"spec.sampling.framesPerSecond": 9}),
    Case(G, "spec", "too few for Hybrid", {"spec.parallelism.mode": "Hybrid", "spec.sampling.steps": 9}),
    Case(
        G,
        "spec",
        "too few for Hybrid",
        {
            "spec.parallelism": {"mode": "Hybrid", "switching": {"slopeWindowPercent": 9}},
            "spec.sampling.steps": 22,
        },
    ),
    Case(G, "spec", "too few for Guided", {"spec.parallelism.mode": "Guided", "spec.sampling.steps": 2}),
    *_pods(T),
    Case(T, "spec.dataset", "must be a path or begin with", {"spec.dataset.uri": "http://host/x"}),
    Case(T, "spec.optimizer", "greater than 0", {"spec.optimizer.learningRate": "0.0"}),
    Case(T, "spec.optimizer", "betas: must be less than 1", {"spec.optimizer.betas": ["0.9", "1.0"]}),
    Case(T, "spec.optimizer", "ema: must be less than 1", {"spec.optimizer.ema": "1"}),
    Case(T, "spec.parallelism", "fewer microbatches than", {"spec.parallelism.microbatches": 1}),
    Case(
        T,
        "spec.parallelism",
        "takes microbatches in equal rounds",
        {
            "spec.parallelism": {"schedule": "Interleaved1F1B", "microbatches": 5},
            "spec.batchSize": 50,
        },
    ),
    Case(
        T,
        "spec.parallelism",
        "need at least two pipeline ranks",
        {
            "spec.parallelism": {"schedule": "ZBH1", "pipeline": 1},
            "spec.freezing.method": "None",
            "spec.workers.gpusPerNode": 1,
        },
    ),
    Case(
        T,
        "spec.parallelism",
        "activationCheckpointing: a split backward",
        {"spec.parallelism": {"schedule": "ZBV", "activationCheckpointing": True}},
    ),
    Case(T, "spec.freezing", "maxFreezeRatio: must be between 0 and 1", {"spec.freezing.maxFreezeRatio": "1.01"}),
    Case(T, "spec.freezing", "slackPercent: must be between 0 and 100", {"spec.freezing.slackPercent": "100.1"}),
    Case(T, "spec.freezing", "replanDriftPercent: must be", {"spec.freezing.replanDriftPercent": "101"}),
    Case(T, "spec.freezing", "apfThreshold: must be between 0 and 1", {"spec.freezing.apfThreshold": "2"}),
    Case(T, "spec", "LoRAs are for GenerationJobs", {"spec.model.lora": [{"uri": "lora"}]}),
    Case(T, "spec", "must equal workers.nodesPerReplica", {"spec.parallelism.data": 2}),
    Case(
        T,
        "spec",
        "freezing needs at least two",
        {"spec.parallelism.pipeline": 1, "spec.workers.gpusPerNode": 1},
    ),
    Case(T, "spec", "must be a multiple of", {"spec.batchSize": 63}),
    Case(T, "spec", "must be a multiple of", {"spec.accumulation": 3}),
    Case(T, "spec", "is for task CausalLM", {"spec.task": "ImageClassification", "spec.dataset.sequenceLength": 64}),
    Case(T, "spec", "is for tasks that see pictures", {"spec.dataset.imageSize": 64}),
]

UPDATE = [
    Case(G, "spec.model", "model is immutable", {"spec.model.revision": "abc"}),
    Case(G, "spec.model", "model is immutable", {"spec.model.lora": [{"uri": "x"}]}),
    Case(G, "spec.model", "model is immutable", {"spec.model.cache.claimName": "models"}),
    Case(G, "spec.prompts", "prompts are immutable", {"spec.prompts.perShard": 8}),
    Case(G, "spec.prompts", "prompts are immutable", {"spec.prompts": {"uri": "s3://b/p.jsonl"}}),
    Case(G, "spec.sampling", "sampling is immutable", {"spec.sampling.seed": 1}),
    Case(G, "spec.sampling", "sampling is immutable", {"spec.sampling.guidanceScale": "5.0"}),
    Case(G, "spec.sampling", "sampling is immutable", {"spec.sampling.extra": {"strength": 0.5}}),
    Case(G, "spec.parallelism", "parallelism is immutable", {"spec.parallelism.whenUnguided": "OneRank"}),
    Case(G, "spec.parallelism", "parallelism is immutable", {"spec.parallelism.switching.budget": "40"}),
    Case(G, "spec.output", "output is immutable", {"spec.output.format": "webp"}),
    Case(G, "spec.output", "output is immutable", {"spec.output.prefix": "x"}),
    Case(G, "spec.workers", "only replicas and minReplicas may change", {"spec.workers.image": "other"}),
    Case(G, "spec.workers", "only replicas and minReplicas may change", {"spec.workers.sharedMemory": "9Gi"}),
    Case(G, "spec.workers", "only replicas and minReplicas may change", {"spec.workers.template.labels": {"a": "b"}}),
    Case(G, "spec.workers", "only replicas and", {"spec.workers.template.affinity": {"nodeAffinity": {}}}),
    Case(G, "spec", "managedBy: is immutable", {"spec.managedBy": "kueue.x-k8s.io/multikueue"}),
    Case(G, "spec", "imagesPerPrompt: is immutable", {"spec.imagesPerPrompt": 2}),
    Case(T, "spec.model", "model is immutable", {"spec.model.revision": "abc"}),
    Case(T, "spec.dataset", "dataset is immutable", {"spec.dataset.split": "all"}),
    Case(T, "spec.dataset", "dataset is immutable", {"spec.dataset.extra": {"a": 1}}),
    Case(T, "spec.optimizer", "optimizer is immutable", {"spec.optimizer.weightDecay": "0.1"}),
    Case(T, "spec.parallelism", "parallelism is immutable", {"spec.parallelism.schedule": "ZBH1"}),
    Case(T, "spec.freezing", "freezing is immutable", {"spec.freezing.method": "None"}),
    Case(T, "spec.freezing", "freezing is immutable", {"spec.freezing.warmupSteps": 5}),
    Case(T, "spec.output", "output is immutable", {"spec.output.report": False}),
    Case(T, "spec", "steps: may only grow", {"spec.steps": 99}),
    Case(T, "spec", "workers: are immutable", {"spec.workers.image": "other"}),
    Case(T, "spec", "task: is immutable", {"spec.task": "DiffusionTransformer"}),
    Case(T, "spec", "initialWeights: is immutable", {"spec.initialWeights": "Random"}),
    Case(T, "spec", "batchSize: is immutable", {"spec.batchSize": 128}),
    Case(T, "spec", "accumulation: is immutable", {"spec.accumulation": 2}),
    Case(T, "spec", "precision: is immutable", {"spec.precision": "float32"}),
    Case(T, "spec", "seed: is immutable", {"spec.seed": 1}),
    Case(T, "spec", "managedBy: is immutable", {"spec.managedBy": "kueue.x-k8s.io/multikueue"}),
]

MAY_CHANGE = [
    (G, {"spec.workers.replicas": 7, "spec.workers.minReplicas": 2, "spec.suspend": True}),
    (G, {"spec.ttlSecondsAfterFinished": 5, "spec.activeDeadlineSeconds": 5, "spec.preRunningDeadlineSeconds": 5}),
    (G, {"spec.scheduling.priorityClassName": "low", "spec.failurePolicy.retriesPerShard": 0}),
    (T, {"spec.steps": 1000}),
    (T, {"spec.suspend": True, "spec.checkpoint.everySteps": 7, "spec.evaluation.batches": 1}),
]

# Rules that no object of its kind can break, since a default is always there and the rule holds it to that; and those of
# parts that another rule refuses altogether.
UNBREAKABLE = {
    ("GenerationJob", "spec.failurePolicy", "needs retriesPerShard"),
    ("TrainingJob", "spec.model.lora[]", "must be a path or begin with"),
}

STRUCTURE: list[tuple[str, dict[str, Any]]] = [
    (G, {"spec.model": None}),
    (G, {"spec.prompts": None}),
    (G, {"spec.model.uri": ""}),
    (G, {"spec.model.uri": 5}),
    (G, {"spec.model.uri": "x" * 2049}),
    (G, {"spec.model.revison": "main"}),
    (G, {"spec.model.dtype": "float64"}),
    (G, {"spec.model.lora": {"uri": "x"}}),
    (G, {"spec.model.lora": [{"uri": "x"}] * 17}),
    (G, {"spec.model.lora": [{}]}),
    (G, {"spec.model.allowPickle": "true"}),
    (G, {"spec.prompts.inline": []}),
    (G, {"spec.prompts.inline": [""]}),
    (G, {"spec.prompts.inline": ["a"] * 257}),
    (G, {"spec.prompts.inline": "a red ring"}),
    (G, {"spec.prompts.perShard": 0}),
    (G, {"spec.prompts.perShard": "16"}),
    (G, {"spec.prompts.perShard": 1.5}),
    (G, {"spec.prompts.perShard": True}),
    (G, {"spec.imagesPerPrompt": 1025}),
    (G, {"spec.sampling.steps": 0}),
    (G, {"spec.sampling.seed": 2**32}),
    (G, {"spec.sampling.seed": -1}),
    (G, {"spec.sampling.guidanceScale": 5.0}),
    (G, {"spec.sampling.guidanceScale": "-5"}),
    (G, {"spec.sampling.guidanceScale": "1e3"}),
    (G, {"spec.sampling.guidanceScale": "5\n"}),
    (G, {"spec.sampling.extra": [1]}),
    (G, {"spec.parallelism.conditioning": 3}),
    (G, {"spec.parallelism.mode": "exact"}),
    (G, {"spec.parallelism.switching.budget": "-1"}),
    (G, {"spec.workers.replicas": 0}),
    (G, {"spec.workers.template.serviceAccountName": "admin"}),
    (G, {"spec.workers.template.securityContext": {"runAsUser": 0}}),
    (G, {"spec.workers.template.hostNetwork": True}),
    (G, {"spec.workers.template.env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
    (G, {"spec.workers.template.volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
    (G, {"spec.workers.template.volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    (G, {"spec.workers.template.volumes": [{"name": "v", "projected": {"sources": []}}]}),
    (G, {"spec.workers.resources": {"limits": {"cpu": 1.5}}}),
    (G, {"spec.workers.resources": {"limits": {"cpu": "lots"}}}),
    (G, {"spec.workers.resources": {"limits": {"cpu": -1}}}),
    (G, {"spec.workers.resources": {"claims": []}}),
    (G, {"spec.workers": []}),
    (G, {"spec.failurePolicy.rules": [{"onExitCodes": [0], "action": "Count"}]}),
    (G, {"spec.failurePolicy.rules": [{"onExitCodes": [1], "action": "Retry"}]}),
    (G, {"spec.suspend": "yes"}),
    (G, {"spec.managedBy": "somebody"}),
    (G, {"spec.output.format": "gif"}),
    (G, {"spec.output.prefix": "../other"}),
    (G, {"spec.output.prefix": "/absolute"}),
    (G, {"spec.output.prefix": "a/../../b"}),
    (G, {"spec.activeDeadlineSeconds": 0}),
    (G, {"spec.steps": 5}),
    (T, {"spec.task": "Diffusion"}),
    (T, {"spec.steps": 0}),
    (T, {"spec.workers.replicas": 2}),
    (T, {"spec.parallelism.schedule": "1f1b"}),
    (T, {"spec.optimizer.betas": ["0.9"]}),
    (T, {"spec.optimizer.learningRate": 0.001}),
    (T, {"spec.failurePolicy.retriesPerShard": 1}),
    (T, {"spec.failurePolicy.rules": [{"onExitCodes": [1], "action": "FailShard"}]}),
    (T, {"spec.dataset.columns": {"pixels": "x"}}),
    (T, {"spec.freezing.maxFreezeRatio": "-0.1"}),
]
"""Objects that the structure alone refuses."""

PATTERNS: dict[str, tuple[list[str], list[str]]] = {
    base.DECIMAL_PATTERN: (["0", "5.0", "0.0004", "123456789.123456789"], ["", "-1", ".5", "5.", "1e3", "5\n", "٥"]),
    base.SIGNED_DECIMAL_PATTERN: (["-1.0", "0.8"], ["--1", "+1", "-"]),
    base.LABEL_PATTERN: (["a", "a-1", "0"], ["", "-a", "a-", "A", "a.b", "a\n"]),
    base.NAME_PATTERN: (["a", "a.b-c"], ["", ".a", "a.", "A", "a/b"]),
    base.LABEL_VALUE_PATTERN: (["a", "A_b.c-1"], ["-", "a b", "a/b", "é"]),
    base.LABEL_KEY_PATTERN: (["a", "nvidia.com/gpu.product"], ["", "a/b/c", "/a", "a/"]),
    base.QUANTITY_PATTERN: (["8Gi", "500m", "1.5G", "3"], ["", "8gi", "8 Gi", "-1", "Gi"]),
    base.CLASS_PATTERN: (["EulerDiscreteScheduler", "A1"], ["", "euler", "A.B", "A B"]),
    base.FOLDER_PATTERN: (
        ["a", "a/b", ".cache/x", "a..b"],
        ["", "/a", "a/", "a//b", "..", "a/../b", ".", "./a", "a\\b"],
    ),
    base.MOUNT_PATTERN: (["/a", "/a/.b"], ["", "/", "a", "/a/", "/../a", "/a/..", "/a:b", "//a"]),
    base.RESOURCE_PATTERN: (["nvidia.com/gpu"], ["gpu", "nvidia.com/", "a/b/c"]),
    base.VARIABLE_PATTERN: (["A_1", "_a"], ["", "1a", "a-b", "a b"]),
    base.PSNR_PATTERN: (["45", "45.5", "inf"], ["", "-45", "infinite", "4500"]),
    base.KEY_PATTERN: (["prompts.jsonl"], ["a/b", ""]),
}
"""Texts that a pattern of the API takes, and texts that it doesn't."""


def random_job(kind: str, schema: dict[str, Any], seed: int, *, wrong: float = 0.0) -> dict[str, Any]:
    """An object of a kind, drawn from its schema; hardly any keeps all rules. `wrong`: share of values of a wrong type."""
    rng = random.Random(seed)
    spec = _draw(schema["properties"]["spec"], rng, wrong=wrong)
    return {
        "apiVersion": "frazil.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": rng.choice(["a", "pictures", "b-2", "x" * 40, "y" * 41])},
        "spec": spec,
    }


def repaired(job: dict[str, Any]) -> dict[str, Any]:
    """`job` with the parts that rules speak of left to their defaults, all others as they were drawn."""
    spec = copy.deepcopy(job["spec"])
    for part, fields in {
        "prompts": ["uri", "configMapRef", "inline"],
        "sampling": ["frames", "framesPerSecond"],
        "parallelism": [
            "conditioning",
            "pipeline",
            "sequence",
            "mode",
            "switching",
            "schedule",
            "microbatches",
            "data",
        ],
        "workers": ["minReplicas", "nodesPerReplica", "gpusPerNode", "resources"],
        "scheduling": ["gang"],
        "optimizer": ["learningRate", "betas", "ema"],
        "freezing": ["maxFreezeRatio", "slackPercent", "replanDriftPercent", "apfThreshold"],
        "failurePolicy": ["rules"],
        "dataset": ["sequenceLength", "imageSize"],
        "model": ["cache", "lora"],
    }.items():
        for field in fields:
            spec.get(part, {}).pop(field, None)
    for field in ("env", "volumes", "volumeMounts", "labels", "annotations"):
        spec.get("workers", {}).get("template", {}).pop(field, None)
    for part in ("model", "dataset"):
        if part in spec:
            spec[part]["uri"] = "s3://bucket/prefix"
    if "prompts" in spec:
        spec["prompts"]["inline"] = ["a red ring"]
    for field in ("batchSize", "accumulation"):
        spec.pop(field, None)
    return {**job, "metadata": {"name": "pictures"}, "spec": spec}


def _draw(schema: dict[str, Any], rng: random.Random, *, wrong: float) -> Any:
    if rng.random() < wrong:
        return rng.choice([None, True, -1, 0, 1.5, "", "x" * 3000, [], {}, {"a": 1}, "5", 2**40])
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "integer" or (kind is None and rng.random() < 0.5):
        low, high = schema.get("minimum", -5), min(schema.get("maximum", 5), 2**40)
        return rng.choice([low, high, rng.randint(low, high), rng.randint(low, min(high, low + 9))])
    if kind in ("string", None):
        return _text(schema, rng)
    if kind == "array":
        count = rng.randint(schema.get("minItems", 0), min(schema.get("maxItems", 3), schema.get("minItems", 0) + 2))
        return [_draw(schema["items"], rng, wrong=wrong) for _ in range(count)]
    if "properties" in schema:
        required = schema.get("required", [])
        names = [name for name in schema["properties"] if name in required or rng.random() < 0.4]
        return {name: _draw(schema["properties"][name], rng, wrong=wrong) for name in names}
    if "additionalProperties" in schema:
        names = rng.sample(["a", "b.c/d", "frazil.dev/x", "nvidia.com/gpu"], rng.randint(0, 2))
        return {name: _draw(schema["additionalProperties"], rng, wrong=wrong) for name in names}
    return rng.choice([{}, {"a": 1}, {"a": {"b": [1, "x", 2.5]}}])


def _text(schema: dict[str, Any], rng: random.Random) -> str:
    if "pattern" in schema:
        return rng.choice([text for text in PATTERNS[schema["pattern"]][0] if len(text) >= schema.get("minLength", 0)])
    choices = ["a", "a: b", "hf://a/b", "gs://a/b", "ein Eisblumenfenster ❄", "x" * schema.get("maxLength", 40)]
    return rng.choice([text for text in choices if len(text) <= schema.get("maxLength", 40)])
