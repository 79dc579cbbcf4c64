"""The pod of a job: `fetch` (init), `upload` (native sidecar) and the GPU container, which holds no credential at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.naming import job_prefix
from frazil_jobs.api.quantities import parse_quantity
from frazil_operator.build.labels import INDEX, Owner
from frazil_operator.build.volumes import (
    CLAIMS,
    JOB_FILE,
    MODELS,
    SPOOL,
    TRUST,
    Job,
    claims_of,
    config_map_prompts,
    credentials_secret,
    template_mounts,
    volumes_of,
)
from frazil_operator.settings import Destination, Settings

COMPUTE: Final = "compute"
FETCH: Final = "fetch"
UPLOAD: Final = "upload"
RENDEZVOUS_PORT: Final = 29500
_MODULES: Final = {"GenerationJob": "frazil_jobs.generation", "TrainingJob": "frazil_jobs.training"}
_STORE_KEYS: Final = {
    "FRAZIL_S3_ENDPOINT": ("endpoint", False),
    "FRAZIL_S3_REGION": ("region", True),
    "FRAZIL_S3_ACCESS_KEY": ("accessKey", False),
    "FRAZIL_S3_SECRET_KEY": ("secretKey", False),
}
"""Variable: key of the Secret, and whether it may be missing."""
_PATIENCE_SECONDS: Final = 600
"""How long `fetch` waits for a store that is away before the pod fails and a try is counted."""
_SPOOL_SHARE: Final = Decimal("0.8")
"""Of the spool's size, how much may wait for the store before the GPU container pauses: at all of it the pod is evicted."""
_MOST_RESERVE_SECONDS: Final = 15
_END_SECONDS: Final = 5
"""Of the reserve: for `upload` to end by itself."""


@dataclass(frozen=True, kw_only=True)
class PodRequest:
    """What a pod template is made for."""

    job: Job
    owner: Owner
    attempt: int
    config_map: str
    settings: Settings
    prompts_sha256: str | None = None
    shard: int | None = None
    """Of a gang that makes one shard. None: the pod's own completion index (a GenerationJob)."""
    rendezvous: str | None = None
    """Host of the gang's first pod, where it has several."""
    subdomain: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    """What the gang provider puts into the pod's spec."""

    @property
    def destination(self) -> Destination:
        """Where results go. Reconcile has checked that it's there."""
        found = self.settings.destination(self.job.spec.output.destination)
        assert found is not None, "checked by reconcile.admission"
        return found

    @property
    def store_env(self) -> list[dict[str, Any]]:
        """The store, without what opens it."""
        return [
            _value("FRAZIL_STORE", self.destination.uri),
            _value("FRAZIL_PREFIX", job_prefix(self.job, self.owner.uid)),
            _value("FRAZIL_JOB_UID", self.owner.uid),
        ]


def pod_template(request: PodRequest) -> dict[str, Any]:
    """The template of a Job's pods."""
    template, settings = request.job.spec.workers.template, request.settings
    volumes = volumes_of(request.job, config_map=request.config_map, settings=settings)
    mounts = {
        container: [mount for volume in volumes if (mount := getattr(volume, container)) is not None]
        for container in (FETCH, COMPUTE, UPLOAD)
    }
    mounts[FETCH] += template_mounts(template, read_only=True)
    mounts[COMPUTE] += template_mounts(template, read_only=False)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.grace_period_seconds,
        "securityContext": _pod_security(settings),
        "initContainers": [_fetch(request, mounts[FETCH]), _upload(request, mounts[UPLOAD])],
        "containers": [_compute(request, mounts[COMPUTE])],
        "volumes": [volume.volume for volume in volumes],
        "tolerations": _tolerations(request),
    }
    optional = {
        "subdomain": request.subdomain,
        "nodeSelector": dict(template.node_selector),
        "affinity": dict(template.affinity) or _topology(request),
        "schedulerName": template.scheduler_name,
        "runtimeClassName": template.runtime_class_name,
        "priorityClassName": request.job.spec.scheduling.priority_class_name,
        "imagePullSecrets": [
            {"name": name}
            for name in dict.fromkeys(
                [*(secret.name for secret in template.image_pull_secrets), *settings.images.pull_secrets]
            )
        ],
    }
    spec |= {name: value for name, value in optional.items() if value}
    spec |= request.spec
    metadata: dict[str, Any] = {
        "labels": {**template.labels, **request.owner.labels(attempt=request.attempt), **request.labels}
    }
    if annotations := {**template.annotations, **request.annotations}:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec}


def _fetch(request: PodRequest, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    job, settings = request.job, request.settings
    env = [
        _value("FRAZIL_JOB_FILE", JOB_FILE),
        _value("FRAZIL_SPOOL", SPOOL),
        _value("FRAZIL_MODEL_CACHE", MODELS),
        _value("FRAZIL_PATIENCE_SECONDS", str(_PATIENCE_SECONDS)),
        *request.store_env,
        *_credentials(request.destination, "read"),
    ]
    if isinstance(job, GenerationJob):
        env.append(_index("FRAZIL_SHARDS") if request.shard is None else _value("FRAZIL_SHARDS", str(request.shard)))
    else:
        env.append(_value("FRAZIL_ATTEMPT", str(request.attempt)))
    if request.prompts_sha256:
        env.append(_value("FRAZIL_PROMPTS_SHA256", request.prompts_sha256))
    if claims_of(job):
        env.append(_value("FRAZIL_PVC_ROOT", CLAIMS))
    if path := config_map_prompts(job):
        env.append(_value("FRAZIL_PROMPTS_FILE", path))
    if job.spec.model.secret_ref is not None:
        env.append(_secret("HF_TOKEN", job.spec.model.secret_ref.name, "token"))
    return {
        **_container(FETCH, settings.images.worker, "frazil_jobs.inputs.fetch", settings=settings),
        "env": [*env, *_common_env()],
        "resources": settings.resources.fetch.document(),
        "volumeMounts": mounts,
    }


def _upload(request: PodRequest, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    settings = request.settings
    env = [
        _value("FRAZIL_SPOOL", SPOOL),
        {"name": "FRAZIL_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        _value("FRAZIL_QUEUE", "frazil.upload.$(FRAZIL_POD)"),
        _value("FRAZIL_DRAIN_SECONDS", str(max(1, _reserve(settings) - _END_SECONDS))),
        _secret("FRAZIL_REDIS_URL", settings.redis_secret, "url"),
        *request.store_env,
        *_credentials(request.destination, "write"),
    ]
    return {
        **_container(UPLOAD, settings.images.worker, "frazil_jobs.outputs.upload", settings=settings),
        "restartPolicy": "Always",
        "env": [*env, *_common_env()],
        "resources": settings.resources.upload.document(),
        "volumeMounts": mounts,
    }


def _compute(request: PodRequest, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    job, settings = request.job, request.settings
    workers = job.spec.workers
    env = [
        _value("FRAZIL_SPOOL", SPOOL),
        _value("FRAZIL_SPOOL_BYTES", str(int(parse_quantity(settings.spool_size) * _SPOOL_SHARE))),
        _value("FRAZIL_GRACE_SECONDS", str(settings.grace_period_seconds - _reserve(settings))),
    ]
    if request.rendezvous is not None:
        env += [
            _value("FRAZIL_NODES", str(workers.nodes_per_replica)),
            _index("FRAZIL_NODE_RANK"),
            _value("FRAZIL_RENDEZVOUS", f"{request.rendezvous}:{RENDEZVOUS_PORT}"),
        ]
    # The administrator outranks the job, and Frazil's own names both. Twice the same name would be refused.
    own = [_value(variable.name, variable.value.replace("$", "$$")) for variable in workers.template.env]
    all_jobs = [_value(name, value) for name, value in sorted(settings.compute_env.items())]
    env = list({one["name"]: one for one in (*_common_env(), *own, *all_jobs, *env)}.values())
    gpus = {workers.accelerator: str(workers.gpus_per_node)}
    resources = workers.resources.document()
    return {
        **_container(COMPUTE, workers.image or settings.images.jobs, _MODULES[job.kind], settings=settings),
        "env": env,
        "resources": {
            "requests": {**resources.get("requests", {}), **gpus},
            "limits": {**resources.get("limits", {}), **gpus},
        },
        "volumeMounts": mounts,
    }


def _reserve(settings: Settings) -> int:
    """Seconds of the grace period that are for what is still in the spool when compute has ended."""
    return min(_MOST_RESERVE_SECONDS, settings.grace_period_seconds // 2)


def _container(name: str, image: str, module: str, *, settings: Settings) -> dict[str, Any]:
    claim = settings.environment_claim
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.images.pull_policy,
        "command": [claim.python if claim else "python", "-m", "frazil_jobs.base.entry", module],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }


def _pod_security(settings: Settings) -> dict[str, Any]:
    context: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if settings.run_as_user is not None:
        context |= dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), settings.run_as_user)
        context["fsGroupChangePolicy"] = "OnRootMismatch"
    return context


def _tolerations(request: PodRequest) -> list[dict[str, Any]]:
    """The job's own, and how long an unreachable node is waited for (unless the job says that itself)."""
    own = [toleration.document() for toleration in request.job.spec.workers.template.tolerations]
    evicted = [one for one in own if one.get("effect") in (None, "", "NoExecute")]
    if any(not one.get("key") for one in evicted):  # it tolerates every taint, as long as it says
        return own
    said = {one.get("key") for one in evicted}
    return own + [
        {
            "key": key,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": request.settings.node_lost_seconds,
        }
        for key in ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
        if key not in said
    ]


def _topology(request: PodRequest) -> dict[str, Any]:
    """Pods of a replica near each other, as a wish: a demand without gang scheduling could wait for ever."""
    key = request.job.spec.scheduling.topology_key
    if key is None or request.rendezvous is None:
        return {}
    selector = {"matchLabels": {**request.owner.labels(attempt=request.attempt), **request.labels}}
    term = {"labelSelector": selector, "topologyKey": key}
    return {
        "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    }


def _common_env() -> list[dict[str, Any]]:
    return [_value("HOME", "/tmp"), _value("USER", "frazil"), _value("FRAZIL_LOG", "json")]  # noqa: S108


def _credentials(destination: Destination, right: str) -> list[dict[str, Any]]:
    secret = credentials_secret(destination.name, right)
    env = [_secret(name, secret, key, optional=optional) for name, (key, optional) in _STORE_KEYS.items()]
    return [*env, _value("FRAZIL_S3_CA", f"{TRUST}/ca.crt")] if destination.custom_ca else env


def _value(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "value": value}


def _index(name: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}}


def _secret(name: str, secret: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    reference = {"name": secret, "key": key, **({"optional": True} if optional else {})}
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}
