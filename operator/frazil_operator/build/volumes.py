"""Volumes of a job's pod, and who sees which: a credential is mounted where it's used and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.pods import MOUNT_ROOT, PodTemplate
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_operator.settings import Settings

SPOOL: Final = f"{MOUNT_ROOT}/spool"
JOB_FOLDER: Final = f"{MOUNT_ROOT}/job"
JOB_FILE: Final = f"{JOB_FOLDER}/job.yaml"
MODELS: Final = f"{MOUNT_ROOT}/models"
CLAIMS: Final = f"{MOUNT_ROOT}/claims"
PROMPTS_FOLDER: Final = f"{MOUNT_ROOT}/prompts"
TRUST: Final = f"{MOUNT_ROOT}/trust"

Job = GenerationJob | TrainingJob


@dataclass(frozen=True)
class Mounted:
    """One volume of the pod and where each container sees it; None: it doesn't."""

    volume: dict[str, Any]
    fetch: dict[str, Any] | None = None
    compute: dict[str, Any] | None = None
    upload: dict[str, Any] | None = None


def volumes_of(job: Job, *, config_map: str, settings: Settings) -> list[Mounted]:
    """All volumes of a pod of `job`, Frazil's own first."""
    further = [Mounted(volume.document()) for volume in job.spec.workers.template.volumes]
    return [*_own(job, config_map=config_map, settings=settings), *_claims(job), *further]


def _own(job: Job, *, config_map: str, settings: Settings) -> Iterator[Mounted]:
    workers = job.spec.workers
    spool = _mount("frazil-spool", SPOOL)
    yield Mounted(
        {"name": "frazil-spool", "emptyDir": {"sizeLimit": settings.spool_size}},
        fetch=spool,
        compute=spool,
        upload=spool,
    )
    yield Mounted(
        {"name": "frazil-job", "configMap": {"name": config_map}},
        fetch=_mount("frazil-job", JOB_FOLDER, read_only=True),
    )
    cache = job.spec.model.cache
    if cache.claim_name:
        source: dict[str, Any] = {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    else:
        source = {"emptyDir": {"sizeLimit": cache.size_limit or settings.cache_size}}
    yield Mounted(
        {"name": "frazil-models", **source},
        fetch=_mount("frazil-models", MODELS),
        compute=_mount("frazil-models", MODELS, read_only=True),
    )
    shared = {"medium": "Memory", "sizeLimit": workers.shared_memory}
    yield Mounted({"name": "frazil-shm", "emptyDir": shared}, compute=_mount("frazil-shm", "/dev/shm"))  # noqa: S108
    for container in ("fetch", "compute", "upload"):
        name = f"frazil-tmp-{container}"
        yield Mounted({"name": name, "emptyDir": {}}, **{container: _mount(name, "/tmp")})  # noqa: S108
    destination = settings.destination(job.spec.output.destination)
    if destination is not None and destination.custom_ca:
        items = {"items": [{"key": "ca.crt", "path": "ca.crt"}]}
        for container, right in (("fetch", "read"), ("upload", "write")):
            name = f"frazil-trust-{right}"
            secret = {"secretName": credentials_secret(destination.name, right), **items}
            mount = _mount(name, TRUST, read_only=True)
            yield Mounted({"name": name, "secret": secret}, **{container: mount})
    if settings.environment_claim is not None:
        claim = settings.environment_claim
        mount = _mount("frazil-environment", claim.mount_path, read_only=True)
        source = {"persistentVolumeClaim": {"claimName": claim.claim_name, "readOnly": True}}
        yield Mounted({"name": "frazil-environment", **source}, fetch=mount, compute=mount, upload=mount)


def credentials_secret(destination: str, right: str) -> str:
    """The Secret of a namespace that may `read` or `write` a destination."""
    return f"frazil-{destination}-{right}"


def config_map_prompts(job: Job) -> str | None:
    """The path of the prompts' ConfigMap key in `fetch`, if that's where they are."""
    if isinstance(job, GenerationJob) and job.spec.prompts.config_map_ref is not None:
        return f"{PROMPTS_FOLDER}/{job.spec.prompts.config_map_ref.key}"
    return None


def _claims(job: Job) -> Iterator[Mounted]:
    if isinstance(job, GenerationJob) and job.spec.prompts.config_map_ref is not None:
        reference = job.spec.prompts.config_map_ref
        items = [{"key": reference.key, "path": reference.key}]
        yield Mounted(
            {"name": "frazil-prompts", "configMap": {"name": reference.name, "items": items}},
            fetch=_mount("frazil-prompts", PROMPTS_FOLDER, read_only=True),
        )
    for number, claim in enumerate(claims_of(job)):
        name = f"frazil-claim-{number}"
        mount = _mount(name, str(PurePosixPath(CLAIMS) / claim), read_only=True)
        yield Mounted(
            {"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}, fetch=mount, compute=mount
        )


def claims_of(job: Job) -> list[str]:
    """Claims that the job reads from (pvc://claim/…), each once, in order."""
    uris = [job.spec.model.uri, *(lora.uri for lora in job.spec.model.lora)]
    uris.append((job.spec.prompts.uri or "") if isinstance(job, GenerationJob) else job.spec.dataset.uri)
    return list(dict.fromkeys(urlsplit(uri).netloc for uri in uris if uri.startswith("pvc://")))


def template_mounts(template: PodTemplate, *, read_only: bool) -> list[dict[str, Any]]:
    """The job's own mounts, for the GPU container as they are, for `fetch` (which looks for file:// there) read-only."""
    mounts = [mount.document() for mount in template.volume_mounts]
    return [{**mount, "readOnly": True} for mount in mounts] if read_only else mounts


def _mount(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}
