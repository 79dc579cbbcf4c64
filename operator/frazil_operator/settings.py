"""What an administrator decides for all jobs: the operator's one settings file, which the chart writes from its values.

It outranks every spec. Pure types; `load_settings` is the only thing here that reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationError

from frazil_jobs.api.base import ApiModel, Label, Name, Quantity
from frazil_jobs.base.exits import BadConfiguration

DEFAULT_PATH: Final = Path("/frazil/config/operator.yaml")
ALL_NAMESPACES: Final = "*"


class Images(ApiModel):
    """Images of a job's pods, and how they are pulled."""

    jobs: str = Field(default="frazil-jobs:0.1.0", min_length=1, max_length=500)
    """Of the GPU container, where a job names none."""
    worker: str = Field(default="frazil-worker:0.1.0", min_length=1, max_length=500)
    """Of `fetch` and `upload`."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """As in a pod."""
    pull_secrets: list[Name] = Field(default_factory=list, max_length=8)
    """Secrets of the registry, in each namespace of jobs."""


class Allow(ApiModel):
    """What a spec may ask for only where the administrator allows it."""

    pickle: bool = False
    """model.allowPickle: weights that can run any code when they are loaded."""
    remote_code: bool = False
    """model.allowRemoteCode: Python code that comes with a model."""


class Destination(ApiModel):
    """A place for results that jobs name in output.destination."""

    name: Label = "default"
    """What jobs call it; part of the names of its Secrets."""
    uri: Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?$", max_length=1024)]
    """s3://bucket/prefix: a namespace's results lie below <uri>/<namespace>/."""
    namespaces: list[str] = Field(default_factory=lambda: [ALL_NAMESPACES])
    """Namespaces that may use it; "*" for all."""
    custom_ca: bool = False
    """Its Secrets hold a certificate (ca.crt) to trust beside the system's."""

    def serves(self, namespace: str) -> bool:
        """Whether jobs of a namespace may use it."""
        return ALL_NAMESPACES in self.namespaces or namespace in self.namespaces


class ContainerResources(ApiModel):
    """Requests and limits of one container, as in a pod."""

    requests: dict[str, Quantity] = Field(default_factory=dict)
    """Least of each resource."""
    limits: dict[str, Quantity] = Field(default_factory=dict)
    """Most of each resource."""


class PodResources(ApiModel):
    """Resources of the containers beside the GPU container."""

    fetch: ContainerResources = Field(
        default_factory=lambda: ContainerResources(
            requests={"cpu": "250m", "memory": "512Mi"}, limits={"memory": "2Gi"}
        )
    )
    """Fetches weights and prompts, then ends."""
    upload: ContainerResources = Field(
        default_factory=lambda: ContainerResources(
            requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"}
        )
    )
    """Runs beside the GPU container."""


class EnvironmentClaim(ApiModel):
    """A read-only claim with a Python environment that every container of a job mounts, where images hold none."""

    claim_name: Name
    """PersistentVolumeClaim, in each namespace of jobs."""
    mount_path: str = Field(pattern=r"^(/[A-Za-z0-9._-]+)+$", max_length=1024)
    """Where it's mounted: where the environment was made."""
    python: str = Field(pattern=r"^(/[A-Za-z0-9._-]+)+$", max_length=1024)
    """The interpreter in it."""


class Settings(ApiModel):
    """The operator's settings."""

    namespaces: list[Label] = Field(default_factory=list, max_length=256)
    """Namespaces whose jobs it acts on. Empty: all of the cluster."""
    lease_namespace: Label = "frazil"
    """Where its Lease is: its own namespace."""
    lease_name: Name = "frazil-operator"
    """One replica acts at a time: the one that holds it."""
    lease_seconds: int = Field(default=15, ge=3, le=600)
    """A holder that doesn't renew it for so long is taken for dead."""
    images: Images = Field(default_factory=Images)
    allow: Allow = Field(default_factory=Allow)
    destinations: list[Destination] = Field(default_factory=list, max_length=64)
    """Where results may go."""
    redis_secret: Name = "frazil-redis"  # noqa: S105
    """Secret in each namespace of jobs, whose key `url` `upload` connects with."""
    compute_env: dict[str, str] = Field(default_factory=dict, max_length=64)
    """Plain environment values of every GPU container."""
    environment_claim: EnvironmentClaim | None = None
    spool_size: Quantity = "20Gi"
    """Size of the folder in which outputs wait for the store. When it's full the GPU container pauses."""
    cache_size: Quantity = "200Gi"
    """Size of the folder with the weights, where a job names neither claim nor size."""
    resources: PodResources = Field(default_factory=PodResources)
    run_as_user: int | None = Field(default=65532, ge=1)
    """User and group of a job's pods. None: what the cluster assigns (OpenShift)."""
    grace_period_seconds: int = Field(default=60, ge=10, le=3600)
    """From SIGTERM to SIGKILL: the image in hand is finished or dropped, and the spool drained."""
    progress_seconds: float = Field(default=5.0, ge=0.1, le=600)
    """Least time between two looks at progress, for all jobs together."""
    resync_seconds: float = Field(default=300.0, ge=0.1, le=86_400)
    """How often every job is looked at again, whatever was heard."""
    node_lost_seconds: int = Field(default=300, ge=5, le=86_400)
    """How long a pod's node may be unreachable before the pod is evicted, and then how long it may take to end before it's
    given up."""
    workers: int = Field(default=8, ge=1, le=64)
    """Jobs that are reconciled at once."""

    def destination(self, name: str) -> Destination | None:
        """The destination of a name."""
        return next((one for one in self.destinations if one.name == name), None)


def parse_settings(document: Any, *, where: str = "settings") -> Settings:
    """Settings from a parsed document. Raises BadConfiguration that names the field."""
    try:
        return Settings.model_validate(document or {})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        raise BadConfiguration(f"{where}: {first['msg']}", field=field, remedy="see docs/operations.md") from None


def load_settings(path: Path) -> Settings:
    """Read the settings file. Raises BadConfiguration."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfiguration(f"can't read {path}: {error.strerror}", field="--config") from None
    except yaml.YAMLError as error:
        raise BadConfiguration(f"{path} is no YAML: {error}", field="--config") from None
    return parse_settings(document, where=str(path))
