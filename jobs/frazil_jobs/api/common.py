"""The half of a spec that both kinds of job share: metadata, model, scheduling, failure policy, output."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from frazil_jobs.api.base import (
    VARIABLE_PATTERN,
    ApiModel,
    ClassName,
    Folder,
    Label,
    LabelKey,
    LabelValue,
    Name,
    Quantity,
    Revision,
    Rule,
    SignedDecimal,
    Uri,
)

DType = Literal["Auto", "float32", "bfloat16", "float16"]
ManagedBy = Literal["frazil.dev/operator", "kueue.x-k8s.io/multikueue"]
MANAGED_BY: Final = "frazil.dev/operator"
SCHEMES = "['hf://', 's3://', 'file://', 'pvc://']"

NAME_RULES = (
    Rule(
        "size(self.metadata.name) <= 40",
        "at most 40 characters: names of pods and hosts (63) are made from it",
        "metadata.name",
    ),
    Rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "lower-case letters, digits and -, beginning with a letter: names of hosts are made from it",
        "metadata.name",
    ),
)


def location_rule(field: str, schemes: str = SCHEMES) -> Rule:
    """The rule that a location is a path or has one of `schemes` (a list in CEL)."""
    names = schemes.strip("[]").replace("'", "")
    return Rule(
        f"!self.{field}.contains('://') || {schemes}.exists(s, self.{field}.startsWith(s))",
        f"must be a path or begin with one of {names}",
        field,
    )


class ObjectMeta(ApiModel):
    """The parts of a Kubernetes object's metadata that Frazil reads; any other is accepted."""

    model_config = ApiModel.model_config | {"extra": "allow"}

    name: str = Field(min_length=1, max_length=253)
    """Name of the job: lower-case letters, digits and -, beginning with a letter, at most 40 characters. Results lie
    under it, and names of pods are made from it."""
    namespace: Label = "default"
    """Namespace of the job. Results lie under it, also those of a local run."""
    uid: str | None = Field(default=None, max_length=64, pattern=r"^[A-Za-z0-9-]+$")
    """Given by the API server. A local run derives one from all that changes the outputs."""
    generation: int | None = None
    """Counts changes of the spec; given by the API server."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the job."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the job."""


class SecretRef(ApiModel):
    """A Secret of the job's own namespace. Only the fetch container mounts it; the GPU container never does."""

    name: Name
    """Name of the Secret."""


class Lora(ApiModel):
    """One LoRA, added to the model's weights when they are loaded."""

    RULES: ClassVar[tuple[Rule, ...]] = (location_rule("uri"),)

    uri: Uri
    """Where it is: hf://org/name, s3://bucket/prefix, file:///folder or pvc://claim/folder; locally also a path beside
    the job file."""
    revision: Revision | None = None
    """Revision of a hub repository. Pin a commit: a job that is resumed must find the same weights. Left out: the
    default branch."""
    weight_name: str | None = Field(default=None, min_length=1, max_length=255)
    """The safetensors file within it, such as posters.safetensors. Left out: the only one there is; needed when there
    are several."""
    scale: SignedDecimal = "1.0"
    """How strongly it acts: "1.0" as it was trained, "0" not at all, negative in the opposite direction."""
    name: str | None = Field(default=None, min_length=1, max_length=63, pattern=VARIABLE_PATTERN)
    """Name of the adapter in the log and the manifest. Left out: lora0, lora1, … in order."""


class ModelCache(ApiModel):
    """Where fetched weights are kept. Set at most one of the two. With neither, in a folder that ends with its pod."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("!(has(self.claimName) && has(self.sizeLimit))", "set claimName or sizeLimit, not both", "sizeLimit"),
    )

    claim_name: Name | None = None
    """A PersistentVolumeClaim of the namespace, ReadWriteMany where pods run on several nodes. Weights are then fetched
    once, not once a pod."""
    size_limit: Quantity | None = None
    """Size of the pod's own folder when there is no claim, such as 30Gi: at least that of the weights on disk."""


class Model(ApiModel):
    """What is loaded: a folder in diffusers' own format (model_index.json and a folder for each component), or for a
    TrainingJob also one in transformers' format."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        location_rule("uri"),
        Rule("self == oldSelf", "model is immutable: make a new job"),
    )

    uri: Uri
    """Where it is: hf://org/name (the Hugging Face hub), s3://bucket/prefix, file:///folder (of the node's image or a
    mounted volume) or pvc://claim/folder; locally also a path beside the job file."""
    revision: Revision | None = None
    """Revision of a hub repository: a branch, a tag or a commit. Pin a commit: a job that is resumed, or a pod that
    starts a day later, must find the same weights. Left out: the default branch."""
    variant: str | None = Field(default=None, min_length=1, max_length=63)
    """Variant of the weights' files, such as fp16 for diffusion_pytorch_model.fp16.safetensors. It says what is
    fetched, not what is computed in: see dtype. Left out: the plain files."""
    dtype: DType = "Auto"
    """Number type of weights and activations. Auto is bfloat16 on a GPU, since it has float32's range at half its size,
    and float32 on a CPU. A TrainingJob keeps its weights in float32 and reads `precision` instead."""
    pipeline: ClassName | None = None
    """Class of diffusers to load the folder with, such as StableDiffusionXLImg2ImgPipeline. Left out: the one that the
    folder names."""
    lora: list[Lora] = Field(default_factory=list, max_length=16)
    """LoRAs, applied together."""
    allow_pickle: bool = False
    """Load pickled weights where there are no safetensors. A pickle can run any code when it's loaded, so the
    administrator must allow it too (in the chart's values)."""
    allow_remote_code: bool = False
    """Run Python code that comes with the model. The administrator must allow it too (in the chart's values)."""
    secret_ref: SecretRef | None = None
    """Secret whose key `token` holds an access token of the hub, for gated and private models (hf://). s3:// is read
    with the namespace's own read credentials."""
    cache: ModelCache = Field(default_factory=ModelCache)


class Scheduling(ApiModel):
    """Queue, priority and placement of the pods."""

    queue_name: LabelValue | None = Field(default=None, min_length=1)
    """Kueue's LocalQueue, in the job's namespace; written as a label on the children, which then wait until the queue
    admits them. Left out: no queue."""
    priority_class_name: Name | None = None
    """PriorityClass of the pods. Left out: the cluster's default."""
    gang: Literal["Auto", "Required", "None"] = "Auto"
    """Whether the pods of a replica must be placed together. Auto: when it has several and the API server serves a
    provider (scheduling.k8s.io PodGroup, Volcano, coscheduling); the condition GangScheduled says which. Required: wait
    rather than start without one. None: never."""
    topology_key: LabelKey | None = None
    """Node label whose value the pods of a replica should share, such as topology.kubernetes.io/rack: their messages
    then stay within it. Left out: no matter."""


class _FailureMatch(ApiModel):
    """When a failure rule applies."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.onExitCodes) != self.onDisruption",
            "set exactly one of onExitCodes and onDisruption",
            "onExitCodes",
        ),
    )

    on_exit_codes: list[Annotated[int, Field(ge=1, le=255)]] | None = Field(default=None, min_length=1, max_length=32)
    """Applies when the GPU container ends with one of these codes. Frazil's own are 65 (bad input), 75 (try again) and
    78 (bad configuration); 137 is a container that the kernel killed, most often for want of memory."""
    on_disruption: bool = False
    """Applies when the pod was evicted, preempted, or lost with its node."""


class ShardFailureRule(_FailureMatch):
    """What one sort of failure costs, in place of the default."""

    action: Literal["FailJob", "FailShard", "Count", "Ignore"]
    """FailJob ends the job. FailShard gives the shard up. Count charges one retry (the default for failures, and for
    75). Ignore tries again free of charge (the default for disruptions)."""


class GangFailureRule(_FailureMatch):
    """What one sort of failure costs, in place of the default."""

    action: Literal["FailJob", "Count", "Ignore"]
    """FailJob ends the job. Count charges one restart (the default for failures, and for 75). Ignore restarts free of
    charge (the default for disruptions)."""


class ShardFailurePolicy(ApiModel):
    """What a failure costs. By default 65 (bad input) fails its shard at once, 78 (bad configuration) fails the job,
    anything else is counted and tried again, and disruptions (eviction, preemption, node loss) are never charged."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.maxFailedShards) || has(self.retriesPerShard)",
            "needs retriesPerShard, which says when a shard has failed",
            "maxFailedShards",
        ),
    )

    retries_per_shard: int = Field(default=3, ge=0, le=20)
    """Tries of one shard after its first. What it has stored is never made again, so a retry goes on where it
    stopped."""
    max_failed_shards: int | None = Field(default=None, ge=0, le=1_000_000)
    """Failed shards that the job survives; one more fails it. Left out: none, the first failed shard fails the job. To
    end well without them set successPolicy.minStoredPercent too."""
    max_restarts: int = Field(default=3, ge=0, le=100)
    """Only with workers.nodesPerReplica above 1: restarts of a replica's gang that are charged, over the whole job."""
    rules: list[ShardFailureRule] = Field(default_factory=list, max_length=16)
    """Exceptions to the defaults; the first that applies decides."""


class GangFailurePolicy(ApiModel):
    """What a failure costs. Any rank that is lost restarts them all from the newest checkpoint. By default 78 (bad
    configuration) and 65 (bad input) fail the job, anything else is charged, and disruptions never are."""

    max_restarts: int = Field(default=3, ge=0, le=1000)
    """Restarts that are charged, over the whole job."""
    max_restarts_without_progress: int = Field(default=3, ge=1, le=1000)
    """Restarts in a row, charged or not, without a new checkpoint between them, after which the job fails even if
    maxRestarts are left: it would only crash again."""
    rules: list[GangFailureRule] = Field(default_factory=list, max_length=16)
    """Exceptions to the defaults; the first that applies decides."""


class Output(ApiModel):
    """Where results go."""

    RULES: ClassVar[tuple[Rule, ...]] = (Rule("self == oldSelf", "output is immutable: make a new job"),)

    destination: Label = "default"
    """Name of a destination in the chart's values (an endpoint, a bucket, a prefix, and the namespaces that may use
    it); locally, the store of `frazil run --store`."""
    prefix: Folder | None = None
    """A folder within the namespace's own: results lie under <destination>/<namespace>/<prefix>/<name>-<uid8>/. Left
    out: none between them."""
    when_deleted: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the results when the job is deleted. Retain keeps them, and the job goes at once. Delete first
    removes what lies under this job's own prefix (by a finalizer), and nothing else."""
