"""The half of a spec that both kinds of job share: model, workers, scheduling, failure policy, output, deadlines."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

from pydantic import Field

from frazil_jobs.api.base import ApiModel, Decimal, Name, Rule, Uri

DType = Literal["Auto", "float32", "bfloat16", "float16"]
MANAGED_BY: Final = "frazil.dev/operator"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"
"""A quantity of bytes as Kubernetes writes it: 8Gi."""


NAME_RULES = (
    Rule(
        "size(self.metadata.name) <= 40",
        "at most 40 characters: names of pods and hosts are made from it",
        "metadata.name",
    ),
)


class ObjectMeta(ApiModel):
    """The parts of a Kubernetes object's metadata that Frazil reads."""

    model_config = ApiModel.model_config | {"extra": "allow"}

    name: str = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Name of the job; at most 40 characters, since names of pods and hosts are made from it."""
    namespace: str = "default"
    """Namespace of the job."""
    uid: str | None = None
    """Given by the API server; a local run derives one from what changes the outputs."""
    generation: int | None = None
    """Counts changes of the spec; given by the API server."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the job."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the job."""


class SecretRef(ApiModel):
    """A Secret of the job's own namespace."""

    name: Name
    """Name of the Secret. Only the container that needs it mounts it; the GPU container never does."""


class Lora(ApiModel):
    """One LoRA, added to the model's weights when they are loaded."""

    uri: Uri
    """Where it is: hf://org/name, s3://bucket/prefix, file:///folder or pvc://claim/folder."""
    revision: str | None = Field(default=None, max_length=255)
    """Revision of a hub repository; pin a commit."""
    weight_name: str | None = Field(default=None, max_length=255)
    """The safetensors file within it; needed when there are several."""
    scale: Decimal = "1.0"
    """How strongly it acts."""
    name: str | None = Field(default=None, max_length=63, pattern=r"^[A-Za-z0-9_]+$")
    """Adapter name; "lora0", "lora1", … by default."""


class ModelCache(ApiModel):
    """Where fetched weights are kept between pods. Set one of the two."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("!(has(self.claimName) && has(self.sizeLimit))", "set claimName or sizeLimit, not both", "sizeLimit"),
    )

    claim_name: Name | None = None
    """A PersistentVolumeClaim, ReadWriteMany for several pods: weights are fetched once."""
    size_limit: str | None = Field(default=None, max_length=20, pattern=QUANTITY_PATTERN)
    """Size of a volume of the pod's own, when there is no claim: "30Gi"."""


class Model(ApiModel):
    """What is loaded: a pipeline folder in diffusers' own format."""

    RULES: ClassVar[tuple[Rule, ...]] = (Rule("self == oldSelf", "model is immutable: make a new job"),)

    uri: Uri
    """hf://org/name, s3://bucket/prefix, file:///folder, pvc://claim/folder; locally also a path beside the job file."""
    revision: str | None = Field(default=None, max_length=255)
    """Revision of a hub repository. Pin a commit: a job that is resumed must find the same weights."""
    variant: str | None = Field(default=None, max_length=63)
    """Weights variant, such as fp16."""
    dtype: DType = "Auto"
    """Number type of the weights in memory. Auto is bfloat16 on a GPU and float32 on a CPU."""
    pipeline: str | None = Field(default=None, max_length=127, pattern=r"^[A-Z][A-Za-z0-9]*$")
    """Class of diffusers to load the folder with (StableDiffusionXLImg2ImgPipeline); what the folder says by default."""
    lora: list[Lora] = Field(default_factory=list, max_length=16)
    """LoRAs, in order."""
    allow_pickle: bool = False
    """Load pickled weights, which can run code, where there are no safetensors. The administrator must allow it too."""
    allow_remote_code: bool = False
    """Run Python code that comes with the model. The administrator must allow it too."""
    secret_ref: SecretRef | None = None
    """Secret with read credentials of the model's source (key `token` for hf://); seen by the fetch container alone."""
    cache: ModelCache | None = None
    """Where weights are kept."""


class Toleration(ApiModel):
    """As in a pod."""

    key: str | None = Field(default=None, max_length=317)
    """Taint key."""
    operator: Literal["Exists", "Equal"] | None = None
    """How the key's value is compared."""
    value: str | None = Field(default=None, max_length=63)
    """Taint value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Taint effect."""
    toleration_seconds: int | None = None
    """For NoExecute: how long."""


class EnvVar(ApiModel):
    """A plain environment value."""

    name: str = Field(min_length=1, max_length=255, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the variable."""
    value: str = Field(default="", max_length=4096)
    """Its value; no reference to a Secret."""


class ConfigMapVolume(ApiModel):
    """A ConfigMap as files."""

    name: Name
    """Name of the ConfigMap."""


class EmptyDirVolume(ApiModel):
    """A folder that ends with its pod."""

    medium: Literal["", "Memory"] = ""
    """Memory counts towards the memory limit."""
    size_limit: str | None = Field(default=None, max_length=20, pattern=QUANTITY_PATTERN)
    """Largest size."""


class ClaimVolume(ApiModel):
    """A PersistentVolumeClaim of the job's namespace."""

    claim_name: Name
    """Name of the claim."""
    read_only: bool = False
    """Mount it read-only."""


class Volume(ApiModel):
    """A volume of a kind that holds no credential and that Pod Security `restricted` allows. Set one kind."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.configMap), has(self.emptyDir), has(self.persistentVolumeClaim)].filter(x, x).size() == 1",
            "set exactly one of configMap, emptyDir, persistentVolumeClaim",
            "name",
        ),
    )

    name: str = Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Name that a mount refers to."""
    config_map: ConfigMapVolume | None = None
    """A ConfigMap."""
    empty_dir: EmptyDirVolume | None = None
    """A folder that ends with its pod."""
    persistent_volume_claim: ClaimVolume | None = None
    """A claim."""


class VolumeMount(ApiModel):
    """Where the GPU container sees a volume."""

    name: str = Field(min_length=1, max_length=63)
    """Name of the volume."""
    mount_path: str = Field(min_length=1, max_length=1024, pattern=r"^/[^:]*$")
    """Absolute path."""
    sub_path: str | None = Field(default=None, max_length=1024)
    """A folder of the volume."""
    read_only: bool = False
    """Mount it read-only."""


class PodTemplate(ApiModel):
    """What may be changed of the pods: a closed list. No service account, no security context, no Secret mounts."""

    node_selector: dict[str, str] = Field(default_factory=dict, max_length=32)
    """Labels that a node must carry."""
    tolerations: list[Toleration] = Field(default_factory=list, max_length=32)
    """Taints that the pods tolerate."""
    affinity: dict[str, Any] = Field(default_factory=dict)
    """Affinity, as in a pod."""
    labels: dict[str, str] = Field(default_factory=dict, max_length=32)
    """Labels added to the pods."""
    annotations: dict[str, str] = Field(default_factory=dict, max_length=32)
    """Annotations added to the pods."""
    image_pull_secrets: list[SecretRef] = Field(default_factory=list, max_length=8)
    """Secrets for the image registry."""
    scheduler_name: str | None = Field(default=None, max_length=253)
    """Scheduler of the pods."""
    runtime_class_name: str | None = Field(default=None, max_length=253)
    """RuntimeClass of the pods."""
    env: list[EnvVar] = Field(default_factory=list, max_length=64)
    """Plain environment values of the GPU container."""
    volumes: list[Volume] = Field(default_factory=list, max_length=16)
    """Further volumes of the GPU container."""
    volume_mounts: list[VolumeMount] = Field(default_factory=list, max_length=32)
    """Where the GPU container sees them."""


class Resources(ApiModel):
    """Requests and limits of the GPU container beside its GPUs."""

    requests: dict[str, str | int] = Field(default_factory=dict, max_length=16)
    """Least of each resource."""
    limits: dict[str, str | int] = Field(default_factory=dict, max_length=16)
    """Most of each resource."""


class GangWorkers(ApiModel):
    """The pods of one replica: how many, of what."""

    nodes_per_replica: int = Field(default=1, ge=1, le=64)
    """Pods of one replica, each on a node of its own; more than one makes a gang."""
    gpus_per_node: int = Field(default=2, ge=1, le=16)
    """GPUs of one pod, one a rank."""
    accelerator: str = Field(default="nvidia.com/gpu", max_length=253)
    """Resource name of the GPUs."""
    image: str | None = Field(default=None, max_length=500)
    """Image of the GPU container; the chart's by default."""
    resources: Resources = Field(default_factory=Resources)
    """CPU and memory of the GPU container."""
    shared_memory: str = Field(default="8Gi", max_length=20, pattern=QUANTITY_PATTERN)
    """Size of /dev/shm; counts towards the memory limit."""
    template: PodTemplate = Field(default_factory=PodTemplate)
    """What may be changed of the pods."""


class Workers(GangWorkers):
    """The pods: how many replicas, and what each is made of."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.minReplicas) || self.minReplicas <= self.replicas", "must not exceed replicas", "minReplicas"),
        Rule(
            "self.nodesPerReplica == oldSelf.nodesPerReplica && self.gpusPerNode == oldSelf.gpusPerNode"
            " && self.accelerator == oldSelf.accelerator && self.resources == oldSelf.resources"
            " && self.sharedMemory == oldSelf.sharedMemory && self.template == oldSelf.template"
            " && has(self.image) == has(oldSelf.image) && (!has(self.image) || self.image == oldSelf.image)",
            "only replicas and minReplicas may change",
        ),
    )

    replicas: int = Field(default=1, ge=1, le=256)
    """Replicas that work at once, each on shards of its own. May be changed while the job runs (`kubectl scale`)."""
    min_replicas: int | None = Field(default=None, ge=1, le=256)
    """Fewest replicas worth starting with, when a queue admits in parts."""


class Scheduling(ApiModel):
    """Queue, priority, gang."""

    queue_name: str | None = Field(default=None, max_length=253)
    """Kueue LocalQueue; written as a label on the children."""
    priority_class_name: str | None = Field(default=None, max_length=253)
    """PriorityClass of the pods."""
    gang: Literal["Auto", "Required", "None"] = "Auto"
    """Whether the pods of a replica must be placed together. Auto: when it has several and a provider is served."""
    topology_key: str | None = Field(default=None, max_length=317)
    """Node label whose value the pods of a replica should share, such as a rack."""


class FailurePolicy(ApiModel):
    """What a failure costs. Disruptions (eviction, preemption, node loss) are never charged."""

    retries_per_shard: int = Field(default=3, ge=0, le=20)
    """Tries of one shard after its first."""
    max_failed_shards: int | None = Field(default=None, ge=0)
    """Failed shards that the job survives; more than these fail it. None survive by default."""
    max_restarts: int = Field(default=3, ge=0, le=100)
    """Restarts of a gang that are charged."""


class Output(ApiModel):
    """Where results go."""

    RULES: ClassVar[tuple[Rule, ...]] = (Rule("self == oldSelf", "output is immutable: make a new job"),)

    destination: str = Field(default="default", max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Name of a destination in the chart's values; locally, the store of `frazil run --store`."""
    prefix: str | None = Field(default=None, max_length=512, pattern=r"^[A-Za-z0-9._/-]+$")
    """A folder below the namespace's prefix."""
    when_deleted: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the results when the job is deleted. Delete removes this job's own prefix, by a finalizer."""
