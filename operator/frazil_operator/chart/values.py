"""The values of the Helm chart, typed: the one source of `charts/values.schema.json`, and of each value's description."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from frazil_jobs.api.base import ApiModel, Label, Name, Quantity, Rule
from frazil_operator.settings import Allow, ContainerResources, EnvironmentClaim, PodResources

Command = Annotated[list[str], Field(max_length=64)]
TenantUrl = Annotated[str, Field(pattern=r"^rediss?://[^:/@\s]+:[^:/@\s]+@\S+$")]
"""With a user and a password."""


class Part(ApiModel):
    """A section of the values."""

    RULES: ClassVar[tuple[Rule, ...]] = ()
    model_config = ApiModel.model_config | {"frozen": True}


class ChartImages(Part):
    """Images, and how they are pulled."""

    operator: str = "ghcr.io/frazil/frazil-operator:0.1.0"
    """Of the operator."""
    worker: str = "ghcr.io/frazil/frazil-worker:0.1.0"
    """Of the worker Deployment, and of `fetch` and `upload` in a job's pods."""
    jobs: str = "ghcr.io/frazil/frazil-jobs:0.1.0"
    """Of the GPU container, where a job names none."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """As in a pod."""
    pull_secrets: list[Name] = Field(default_factory=list)
    """Secrets of the registry: in the release's namespace, and in each tenant's."""


class Placement(Part):
    """Where a component's pods go."""

    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that a node must carry."""
    tolerations: list[dict[str, Any]] = Field(default_factory=list)
    """Taints that are tolerated."""
    resources: ContainerResources = Field(default_factory=ContainerResources)
    """Requests and limits."""


class OperatorValues(Placement):
    """The operator's Deployment and what it decides for all jobs."""

    replicas: int = Field(default=1, ge=0, le=5)
    """One acts, the others stand by for its Lease."""
    lease_seconds: int = Field(default=15, ge=3, le=600)
    """After so long without a sign of life another replica takes over."""
    workers: int = Field(default=8, ge=1, le=64)
    """Jobs that are reconciled at once."""
    progress_seconds: float = Field(default=5.0, ge=0.1, le=600)
    """Least time between two writes of a job's progress."""
    node_lost_seconds: int = Field(default=300, ge=5, le=86400)
    """How long a pod's node may be unreachable before its pods are evicted, and then given up."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """How much is logged."""
    pod_disruption_budget: bool = True
    """Keep a drain from taking the last replica, where there are several."""


class WorkerValues(Placement):
    """The Deployment that inspects prompts, writes manifests and removes outputs."""

    replicas: int = Field(default=1, ge=0, le=20)
    """Any number works."""
    stuck_seconds: int = Field(default=300, ge=120, le=86400)
    """A worker that could take no task for so long, stuck or without its broker, starts again. One that is busy could. More
    than the broker may be away: what runs in the worker then is lost, and asked for again."""
    pod_disruption_budget: bool = True
    """Keep a drain from taking all replicas at once, where there are several."""


class JobsValues(Part):
    """What holds for the pods of all jobs."""

    run_as_user: int | None = Field(default=65532, ge=1)
    """User and group. null: what the cluster assigns (OpenShift)."""
    grace_period_seconds: int = Field(default=60, ge=10, le=3600)
    """From SIGTERM to SIGKILL."""
    spool_size: Quantity = "20Gi"
    """Room for outputs that wait for the store."""
    cache_size: Quantity = "200Gi"
    """Room for weights, where a job names neither claim nor size."""
    compute_env: dict[str, str] = Field(default_factory=dict)
    """Plain environment values of every GPU container."""
    resources: PodResources = Field(default_factory=PodResources)
    """Of `fetch` and `upload`."""


class RedisValues(Placement):
    """The broker. Nothing is lost with it: an emptied Redis costs a rescan."""

    enabled: bool = True
    """Run one. Else name one in `externalUrl` and `externalTenantUrls`."""
    image: str = "docker.io/library/redis:8.2"
    """Redis 6.2 or newer, or Valkey."""
    command: Command = Field(default_factory=lambda: ["redis-server"])
    """The program in the image."""
    external_url: str = ""
    """redis://user:password@host:6379/0 or rediss://…, for the control plane alone."""
    external_tenant_urls: dict[str, TenantUrl] = Field(default_factory=dict)
    """For each of `tenants` the URL of the same server with a user of that namespace's own, who may touch nothing but its
    keys (docs/operations.md has the ACL): whoever may write to the control plane's queue can have results of all removed."""


class Persistence(Part):
    """The volume of the bundled store. It is kept when the release is uninstalled."""

    enabled: bool = True
    """false: results are lost with the pod. For trying things out."""
    size: Quantity = "100Gi"
    """Of the claim."""
    storage_class: str | None = None
    """Left out: the cluster's default."""
    existing_claim: str = ""
    """Use this one."""


class MinioValues(Placement):
    """A MinIO server of one pod. For anything that matters use a store that somebody looks after, and name it in
    `destinations`."""

    enabled: bool = True
    """Run one."""
    image: str = "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"
    """The last image of the community server, which is archived."""
    digest: str = Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Pin the image: sha256:…"""
    command: Command = Field(default_factory=lambda: ["minio"])
    """The program in the image."""
    persistence: Persistence = Field(default_factory=Persistence)
    public_endpoint: str = ""
    """Where people reach it (an ingress). Empty: `frazil fetch` forwards a port."""


class DestinationValues(Part):
    """A place for results that jobs name in output.destination."""

    name: Label = "default"
    """What jobs call it."""
    bucket: str = Field(default="frazil", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    """The bucket."""
    prefix: str = Field(default="results", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._/-]*)?$")
    """A namespace's results lie below <prefix>/<namespace>/."""
    endpoint: str = Field(default="", pattern=r"^(https?://[^/\s]+)?$")
    """http(s)://host:port of an S3 store. Empty: the bundled MinIO."""
    public_endpoint: str = Field(default="", pattern=r"^(https?://[^/\s]+)?$")
    """Where people reach it. Empty: as above, or by a forwarded port."""
    region: str = ""
    """Region, where the store has such."""
    existing_secret: str = ""
    """Secret in the release's namespace with accessKey and secretKey, and perhaps ca.crt, for the worker Deployment. Needed
    with an endpoint. The tenants' own Secrets (frazil-<name>-read, frazil-<name>-write) are then the administrator's to
    make."""
    custom_ca: bool = False
    """The Secrets hold ca.crt."""
    namespaces: list[str] = Field(default_factory=lambda: ["*"])
    """Namespaces that may use it; "*" for all."""
    inputs: list[str] = Field(default_factory=list)
    """s3://bucket/prefix that all its namespaces may read prompts and models from."""


class Switch(Part):
    """On or off."""

    enabled: bool = False
    """true or false."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the object, by which a Prometheus or Grafana finds it."""


def _cluster_dns() -> list[dict[str, Any]]:
    """CoreDNS, and kube-dns before it, as nearly every cluster has it."""
    return [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
    ]


class NetworkPolicyValues(Part):
    """NetworkPolicies for every component, and for the pods of jobs in the tenants' namespaces."""

    enabled: bool = True
    """They need a network plugin that enforces them."""
    metrics_from: list[dict[str, Any]] = Field(default_factory=list)
    """Peers (as in a NetworkPolicy) that may read /metrics. Empty: all pods of the cluster."""
    dns_to: list[dict[str, Any]] = Field(default_factory=_cluster_dns, min_length=1)
    """The cluster's resolvers (peers as in a NetworkPolicy), asked on ports 53 and 5353: the pods k8s-app=kube-dns of
    kube-system. Where nodes have a cache (node-local DNS) add the addresses that it listens at: an ipBlock with
    169.254.20.10/32 and one with the DNS Service's. OpenShift: the namespace openshift-dns."""
    extra_egress: list[dict[str, Any]] = Field(default_factory=list)
    """Further egress rules for the pods of jobs."""
    api_server_ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        default_factory=lambda: [443, 6443], min_length=1
    )
    """Ports of the API server, which the operator reaches at any address: that of its Service, and its own."""
    fetch_from_internet: bool = True
    """Pods of jobs may reach the internet by HTTPS (models of the hub). NetworkPolicies are for pods, not containers: false
    where models come from the store or a claim."""


class Values(Part):
    """Values of the chart."""

    images: ChartImages = Field(default_factory=ChartImages)
    namespaces: list[Label] = Field(default_factory=list)
    """Namespaces whose jobs the operator acts on, with Roles there only. Empty: all, with a ClusterRole."""
    tenants: list[Label] = Field(default_factory=lambda: ["default"])
    """Namespaces that get the Secrets and NetworkPolicies that jobs need. They must exist."""
    operator: OperatorValues = Field(default_factory=OperatorValues)
    worker: WorkerValues = Field(default_factory=WorkerValues)
    jobs: JobsValues = Field(default_factory=JobsValues)
    allow: Allow = Field(default_factory=Allow)
    destinations: list[DestinationValues] = Field(default_factory=lambda: [DestinationValues()], min_length=1)
    """Places for results, of which jobs name one in output.destination. By default one in the bundled MinIO. Helm replaces
    a list whole."""
    redis: RedisValues = Field(default_factory=RedisValues)
    minio: MinioValues = Field(default_factory=MinioValues)
    network_policy: NetworkPolicyValues = Field(default_factory=NetworkPolicyValues)
    service_monitor: Switch = Field(default_factory=Switch)
    """For the Prometheus operator."""
    grafana_dashboard: Switch = Field(default_factory=Switch)
    """A ConfigMap that Grafana's sidecar finds."""
    environment_claim: EnvironmentClaim | None = None
    """A read-only claim with the Python environment, in each namespace, where images hold none."""
    run_as_user: int | None = Field(default=65532, ge=1)
    """User and group of the chart's own pods. null: what the cluster assigns (OpenShift)."""
    global_: dict[str, Any] = Field(default_factory=dict, alias="global")
    """Helm's own, shared with other charts; not read."""
