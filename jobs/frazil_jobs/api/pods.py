"""The pods of a replica: how many, of what, and the closed list of what may be changed of them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from frazil_jobs.api.base import (
    MOUNT_PATTERN,
    RESOURCE_PATTERN,
    VARIABLE_PATTERN,
    ApiModel,
    Folder,
    Label,
    LabelKey,
    LabelValue,
    Name,
    Quantity,
    Rule,
)

MOUNT_ROOT: Final = "/frazil"
"""All that Frazil mounts into a pod lies below it (beside /dev/shm and /tmp), so no job may mount anything there."""


class LocalReference(ApiModel):
    """An object of the job's own namespace, by its name."""

    name: Name
    """Name of the object, which must be in the namespace of the job."""


class Toleration(ApiModel):
    """A taint that the pods tolerate, as in a pod. `{key: nvidia.com/gpu, operator: Exists}` is what GPU nodes often
    ask."""

    key: LabelKey | None = None
    """Key of the taint. Left out with operator Exists: every taint."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Equal compares `value` as well; Exists asks for the key alone."""
    value: LabelValue | None = None
    """Value of the taint, for operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Left out: all effects."""
    toleration_seconds: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """For effect NoExecute: seconds that a pod stays on such a node. Left out: for ever."""


class EnvVar(ApiModel):
    """A plain environment value. There is no `valueFrom`: a job can't read a Secret into its GPU container."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("!self.name.startsWith('FRAZIL_')", "names that begin with FRAZIL_ are Frazil's own", "name"),
    )

    name: str = Field(min_length=1, max_length=255, pattern=VARIABLE_PATTERN)
    """Name of the variable, such as NCCL_DEBUG. Names that begin with FRAZIL_ are Frazil's own."""
    value: str = Field(default="", max_length=4096)
    """Its value, as it stands; `$(OTHER)` is not replaced."""


class EmptyDirVolume(ApiModel):
    """A folder that is made with its pod and ends with it."""

    medium: Literal["", "Memory"] = ""
    """Empty: the node's disk. Memory: a file system in memory, which counts towards the container's memory limit."""
    size_limit: Quantity | None = None
    """Largest size, such as 10Gi; a pod that exceeds it is evicted. Left out: as large as the node allows."""


class ClaimVolume(ApiModel):
    """A PersistentVolumeClaim of the job's namespace."""

    claim_name: Name
    """Name of the claim. Pods on several nodes need one that is ReadWriteMany or ReadOnlyMany."""
    read_only: bool = False
    """Mount it read-only in every container."""


class Volume(ApiModel):
    """A further volume, of a kind that holds no credential and that Pod Security `restricted` allows. Set exactly one
    kind."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.configMap), has(self.emptyDir), has(self.persistentVolumeClaim)].filter(x, x).size() == 1",
            "set exactly one of configMap, emptyDir, persistentVolumeClaim",
            "name",
        ),
        Rule("!self.name.startsWith('frazil-')", "names that begin with frazil- are Frazil's own", "name"),
    )

    name: Label
    """Name that `volumeMounts` refers to."""
    config_map: LocalReference | None = None
    """A ConfigMap, each key as a file."""
    empty_dir: EmptyDirVolume | None = None
    """Write `emptyDir: {}` for the defaults."""
    persistent_volume_claim: ClaimVolume | None = None
    """For instance with pictures that a prompt file names."""


class VolumeMount(ApiModel):
    """Where the GPU container sees a volume."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!['{MOUNT_ROOT}', '/dev/shm', '/tmp'].exists(p, self.mountPath == p || self.mountPath.startsWith(p + '/'))",
            f"{MOUNT_ROOT}, /dev/shm and /tmp are mounted by Frazil itself; choose another path",
            "mountPath",
        ),
    )

    name: Label
    """Name of one of `volumes`."""
    mount_path: str = Field(min_length=2, max_length=1024, pattern=MOUNT_PATTERN)
    """Absolute path, such as /data. The rest of the container's file system is read-only."""
    sub_path: Folder | None = None
    """A folder of the volume. Left out: the whole volume."""
    read_only: bool = False
    """Mount it read-only here."""


class PodTemplate(ApiModel):
    """What may be changed of the pods: a closed list, so that every pod passes Pod Security `restricted` and none holds
    a credential. There is no service account, no security context and no mount of a Secret."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.labels) || self.labels.all(k, !k.startsWith('frazil.dev/'))",
            "labels below frazil.dev/ are Frazil's own",
            "labels",
        ),
        Rule(
            "!has(self.annotations) || self.annotations.all(k, !k.startsWith('frazil.dev/'))",
            "annotations below frazil.dev/ are Frazil's own",
            "annotations",
        ),
        Rule(
            "!has(self.env) || self.env.all(e, self.env.exists_one(f, f.name == e.name))",
            "two variables have the same name",
            "env",
        ),
        Rule(
            "!has(self.volumes) || self.volumes.all(v, self.volumes.exists_one(w, w.name == v.name))",
            "two volumes have the same name",
            "volumes",
        ),
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(m,"
            " has(self.volumes) && self.volumes.exists(v, v.name == m.name))",
            "each must name one of volumes",
            "volumeMounts",
        ),
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(m,"
            " self.volumeMounts.exists_one(n, n.mountPath == m.mountPath))",
            "two mounts have the same mountPath",
            "volumeMounts",
        ),
    )

    node_selector: dict[str, LabelValue] = Field(default_factory=dict, max_length=32)
    """Labels that a node must carry, such as `nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3`. A queue may add its
    own."""
    tolerations: list[Toleration] = Field(default_factory=list, max_length=32)
    """Taints that the pods tolerate. A queue may add its own."""
    affinity: dict[str, Any] = Field(default_factory=dict)
    """Affinity, written as in a pod; checked when the pods are made. For several pods on one rack,
    scheduling.topologyKey is enough."""
    labels: dict[str, LabelValue] = Field(default_factory=dict, max_length=32)
    """Labels added to the pods, for instance for cost accounting."""
    annotations: dict[str, Annotated[str, Field(max_length=4096)]] = Field(default_factory=dict, max_length=32)
    """Annotations added to the pods."""
    image_pull_secrets: list[LocalReference] = Field(default_factory=list, max_length=8)
    """Secrets of the image registry. Used by the node to pull, never mounted."""
    scheduler_name: Name | None = None
    """Scheduler of the pods. Left out: the cluster's, or that of the gang provider in use."""
    runtime_class_name: Name | None = None
    """RuntimeClass of the pods, such as nvidia. Left out: the node's default runtime."""
    env: list[EnvVar] = Field(default_factory=list, max_length=64)
    """Plain environment values of the GPU container, such as NCCL_DEBUG or HF_HUB_OFFLINE."""
    volumes: list[Volume] = Field(default_factory=list, max_length=16)
    """Further volumes of the pod; only the GPU container sees them."""
    volume_mounts: list[VolumeMount] = Field(default_factory=list, max_length=32)
    """Where the GPU container sees them."""


Amount = Quantity | Annotated[int, Field(ge=0, le=10**15)]
"""A quantity, written as text or as a whole number."""


class Resources(ApiModel):
    """What the GPU container asks for beside its GPUs: `requests: {cpu: 8, memory: 64Gi}`."""

    requests: dict[str, Amount] = Field(default_factory=dict, max_length=16)
    """Least of each resource, by which the pod is placed: cpu in cores ("500m" is half a core), memory in bytes
    (64Gi)."""
    limits: dict[str, Amount] = Field(default_factory=dict, max_length=16)
    """Most of each resource. More memory ends the container; it should be at least the weights, the outputs in work and
    sharedMemory."""


class GangWorkers(ApiModel):
    """The pods of one replica: how many, and what each is made of."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(!has(self.resources.requests) || !(self.accelerator in self.resources.requests))"
            " && (!has(self.resources.limits) || !(self.accelerator in self.resources.limits))",
            "ask for GPUs with gpusPerNode",
            "resources",
        ),
    )

    nodes_per_replica: int = Field(default=1, ge=1, le=64)
    """Pods of one replica, each with gpusPerNode GPUs. 1 (the default) keeps all ranks of a replica in one pod, where
    they talk through the GPU links of one machine. More make a gang: the pods are wanted together or not at all, and
    any that is lost restarts them all."""
    gpus_per_node: int = Field(default=2, ge=1, le=16)
    """GPUs of one pod, one rank each. 2 by default: one a guidance branch, or one a pipeline stage."""
    accelerator: str = Field(default="nvidia.com/gpu", max_length=317, pattern=RESOURCE_PATTERN)
    """Name of the resource that counts GPUs on a node, such as nvidia.com/gpu, amd.com/gpu or a MIG profile
    (nvidia.com/mig-3g.40gb)."""
    image: str | None = Field(default=None, min_length=1, max_length=500)
    """Image of the GPU container. Left out: the chart's, which has what every pipeline of diffusers needs. Pin a
    digest."""
    resources: Resources = Field(default_factory=Resources)
    shared_memory: Quantity = "8Gi"
    """Size of /dev/shm, through which ranks of one pod exchange tensors. It is memory of the pod: it counts towards the
    memory limit."""
    template: PodTemplate = Field(default_factory=PodTemplate)


class Workers(GangWorkers):
    """How many replicas work at once, and the pods of each. Only `replicas` and `minReplicas` may change later."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        *GangWorkers.RULES,
        Rule("!has(self.minReplicas) || self.minReplicas <= self.replicas", "must not exceed replicas", "minReplicas"),
        Rule(
            "self.nodesPerReplica == oldSelf.nodesPerReplica && self.gpusPerNode == oldSelf.gpusPerNode"
            " && self.accelerator == oldSelf.accelerator && self.resources == oldSelf.resources"
            " && self.sharedMemory == oldSelf.sharedMemory && self.template == oldSelf.template"
            " && has(self.image) == has(oldSelf.image) && (!has(self.image) || self.image == oldSelf.image)",
            "only replicas and minReplicas may change; make a new job",
        ),
    )

    replicas: int = Field(default=1, ge=1, le=256)
    """Replicas that work at once, each on shards of its own. May be changed while the job runs (`kubectl scale`):
    pictures don't depend on it. More than there are shards are not started."""
    min_replicas: int | None = Field(default=None, ge=1, le=256)
    """Fewest replicas worth starting with, where a queue admits a job in parts. Left out: all or nothing. To stop a job
    set `suspend`."""
