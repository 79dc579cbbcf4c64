"""TrainingJob: pipeline-parallel training that skips the backward work that does not pay."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from frazil_jobs.api.base import API_VERSION, ApiModel, Decimal, Revision, Rule, Seconds, Uri
from frazil_jobs.api.common import (
    MANAGED_BY,
    NAME_RULES,
    GangFailurePolicy,
    ManagedBy,
    Model,
    ObjectMeta,
    Output,
    Scheduling,
    SecretRef,
    location_rule,
)
from frazil_jobs.api.pipelining import Freezing, Schedule, TrainingParallelism
from frazil_jobs.api.pods import GangWorkers
from frazil_jobs.api.status import TrainingJobStatus

__all__ = [
    "Checkpoint",
    "Dataset",
    "Evaluation",
    "Freezing",
    "Optimizer",
    "Schedule",
    "Task",
    "TrainingJob",
    "TrainingJobSpec",
    "TrainingOutput",
    "TrainingParallelism",
]

Task = Literal["DiffusionTransformer", "CausalLM", "ImageClassification"]
Column = Annotated[str, Field(min_length=1, max_length=127)]


class Columns(ApiModel):
    """Names of the columns that the task reads: text for CausalLM, image and label for ImageClassification, image and
    caption for DiffusionTransformer. A column that isn't there is found before any GPU is taken."""

    text: Column = "text"
    """Text to learn, as it stands."""
    image: Column = "image"
    """A picture: its bytes, or its path beside the file."""
    label: Column = "label"
    """Class of the picture, a number from 0."""
    caption: Column = "caption"
    """Prompt that the picture belongs to."""


class Dataset(ApiModel):
    """What the model learns from."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        location_rule("uri"),
        Rule("self == oldSelf", "dataset is immutable: make a new job"),
    )

    uri: Uri
    """hf://datasets/org/name, s3://bucket/prefix, file:///folder or pvc://claim/folder; locally also a path beside the
    job file."""
    format: Literal["Auto", "parquet", "jsonl", "webdataset", "imagefolder", "text"] = "Auto"
    """Format of the files. imagefolder: pictures in folders named as their class, or with a metadata.jsonl. text: plain
    text, cut into sequences. Auto: by their endings."""
    revision: Revision | None = None
    """Revision of a hub data set. Pin a commit: a resumed job must find the same rows in the same order. Left out: the
    default branch."""
    split: str = Field(default="train", min_length=1, max_length=127)
    """Split to train on."""
    validation_split: str | None = Field(default=None, min_length=1, max_length=127)
    """Split to evaluate on. Left out: one row in a hundred of the training split is set aside."""
    columns: Columns = Field(default_factory=Columns)
    sequence_length: int | None = Field(default=None, ge=8, le=1_048_576)
    """CausalLM: tokens of one sample. Left out: what the model allows, up to 1024."""
    image_size: int | None = Field(default=None, ge=8, le=16_384)
    """DiffusionTransformer and ImageClassification: pictures are scaled and cut to a square of so many pixels. Left
    out: the model's own size."""
    secret_ref: SecretRef | None = None
    """Secret whose key `token` holds an access token of the hub, for gated and private data sets."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further settings of the task's reader, checked before any GPU is taken."""


class Optimizer(ApiModel):
    """How weights are updated."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("double(self.learningRate) > 0.0", "must be greater than 0", "learningRate"),
        Rule("self.betas.all(b, double(b) < 1.0)", "must be less than 1", "betas"),
        Rule("double(self.ema) < 1.0", "must be less than 1", "ema"),
        Rule("self == oldSelf", "optimizer is immutable: make a new job"),
    )

    name: Literal["AdamW", "SGD"] = "AdamW"
    """Optimizer of torch."""
    learning_rate: Decimal = "0.0001"
    """Peak learning rate, reached after the warm-up. From scratch about "0.0001" to "0.001"; fine-tuning of a large
    model about "0.000005"."""
    weight_decay: Decimal = "0.01"
    """Weight decay of matrices; vectors (biases, gains of norms) have none. AdamW, decoupled: each step also takes
    learning rate times this off a weight. SGD, as torch has it: this times the weight is added to its gradient, and so
    goes into the momentum."""
    betas: list[Decimal] = Field(default_factory=lambda: ["0.9", "0.95"], min_length=2, max_length=2)
    """Decays of AdamW's two running means, of the gradient and of its square. For SGD the first is the momentum and the
    second isn't used."""
    schedule: Literal["Constant", "Cosine", "Linear"] = "Cosine"
    """Learning rate after the warm-up: as it is, or falling to 0 at `steps` along a cosine or a line. When `steps`
    grows the curve is drawn anew."""
    warmup_steps: int = Field(default=100, ge=0, le=10_000_000)
    """Optimizer steps over which the learning rate grows from 0 to its peak."""
    clip_norm: Decimal = "1.0"
    """Norm of the whole gradient, over all ranks, above which it is scaled down to it. "0" turns clipping off."""
    ema: Decimal = "0"
    """Decay of a running mean of the weights, such as "0.999", which is then what is evaluated and exported; usual for
    diffusion. "0" (the default) keeps none."""


class Checkpoint(ApiModel):
    """When the whole state (weights, optimizer, data order, freezing plan) is stored, and what a new attempt begins
    from."""

    every_steps: int = Field(default=500, ge=1, le=10_000_000)
    """Optimizer steps between checkpoints. They are written beside the training; choose it so that losing as many steps
    is cheap. Suspending stores one as well."""
    keep_last: int = Field(default=3, ge=1, le=100)
    """Committed checkpoints that are kept; older ones are removed once a newer one is committed."""
    resume: Literal["Latest", "Never"] = "Latest"
    """Latest (the default): a new attempt goes on from the newest committed checkpoint of this job. Never: it begins
    anew."""


class Evaluation(ApiModel):
    """When the validation loss is measured."""

    every_steps: int = Field(default=500, ge=0, le=10_000_000)
    """Optimizer steps between evaluations; 0 for none."""
    batches: int = Field(default=16, ge=1, le=100_000)
    """Batches of each evaluation, always the same ones."""


class TrainingOutput(Output):
    """Where checkpoints, the trained model and the report go."""

    report: bool = True
    """Write index.html beside the manifest: loss, throughput, freeze ratios by stage and tensor group, and the schedule
    before and after."""


class TrainingJobSpec(ApiModel):
    """What is wanted of a TrainingJob. `suspend`, `steps` (upwards), checkpoint, evaluation, scheduling, policies and
    deadlines may change while it runs; what decides the weights may not."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.parallelism.pipeline * self.parallelism.data == self.workers.nodesPerReplica * self.workers.gpusPerNode",
            "pipeline * data must equal workers.nodesPerReplica * workers.gpusPerNode",
            "parallelism",
        ),
        Rule(
            "self.freezing.method == 'None' || self.parallelism.pipeline > 1",
            "freezing needs at least two pipeline ranks; set it to None",
            "freezing.method",
        ),
        Rule(
            "self.batchSize % (self.parallelism.microbatches * self.parallelism.data * self.accumulation) == 0",
            "must be a multiple of parallelism.microbatches * parallelism.data * accumulation",
            "batchSize",
        ),
        Rule(
            "!has(self.model.lora) || self.model.lora.size() == 0",
            "LoRAs are for GenerationJobs: merge them into the folder's weights, and train those",
            "model.lora",
        ),
        Rule(
            "!has(self.dataset.sequenceLength) || self.task == 'CausalLM'",
            "is for task CausalLM",
            "dataset.sequenceLength",
        ),
        Rule(
            "!has(self.dataset.imageSize) || self.task != 'CausalLM'",
            "is for tasks that see pictures",
            "dataset.imageSize",
        ),
        Rule("self.steps >= oldSelf.steps", "may only grow", "steps"),
        Rule("self.workers == oldSelf.workers", "are immutable: make a new job", "workers"),
        *(
            Rule(f"self.{name} == oldSelf.{name}", "is immutable: make a new job", name)
            for name in ("task", "initialWeights", "batchSize", "accumulation", "precision", "seed", "managedBy")
        ),
    )

    suspend: bool = False
    """true stores a checkpoint, then stops the pods and gives their GPUs back. false goes on from it."""
    managed_by: ManagedBy = MANAGED_BY
    """Controller that acts on the job: Frazil's own, or Kueue's MultiKueue, which runs it in another cluster."""
    task: Task
    """What is trained, and by which loss. DiffusionTransformer: noise or velocity of pictures (DiT, PixArt, SD3).
    CausalLM: the next token (Llama). ImageClassification: the class of a picture (ViT)."""
    model: Model
    """For a TrainingJob: the model's config, and its weights where it was trained before."""
    initial_weights: Literal["Pretrained", "Random"] = "Pretrained"
    """Pretrained (the default) begins from the folder's weights, and fails where it has none. Random begins from
    weights drawn with `seed`, and needs the config only."""
    dataset: Dataset
    steps: int = Field(ge=1, le=1_000_000_000)
    """Optimizer steps in all. May grow while the job runs, never shrink."""
    batch_size: int = Field(default=64, ge=1, le=1_000_000)
    """Samples of one optimizer step, over all ranks: a multiple of parallelism.microbatches * parallelism.data *
    accumulation."""
    accumulation: int = Field(default=1, ge=1, le=1024)
    """Pipeline batches whose gradients are summed for one optimizer step. More need no more memory."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Number type of forward and backward. Weights and optimizer state are kept in float32."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of initial weights, order of the data, noise, dropout and freezing."""
    optimizer: Optimizer = Field(default_factory=Optimizer)
    parallelism: TrainingParallelism = Field(default_factory=TrainingParallelism)
    """By default two stages."""
    freezing: Freezing = Field(default_factory=Freezing)
    """By default as much as is free. Write {method: None} for plain training."""
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    workers: GangWorkers = Field(default_factory=GangWorkers)
    """A TrainingJob has one replica, of one size. By default one pod of two GPUs."""
    scheduling: Scheduling = Field(default_factory=Scheduling)
    failure_policy: GangFailurePolicy = Field(default_factory=GangFailurePolicy)
    pre_running_deadline_seconds: Seconds | None = None
    """Fail the job when its pods are not all ready within so many seconds of being admitted. Waiting in a queue isn't
    counted. Left out: wait for ever."""
    active_deadline_seconds: Seconds | None = None
    """Fail the job when it has run for so many seconds. Counted from the start, and anew after each resume; checkpoints
    stay. Left out: no limit."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """Delete the job and its pods so many seconds after it finished. Results stay unless output.whenDeleted is Delete.
    Left out: never."""
    output: TrainingOutput = Field(default_factory=TrainingOutput)


class TrainingJob(ApiModel):
    """Pipeline-parallel training that skips the backward work that does not pay, and survives the loss of any pod."""

    RULES: ClassVar[tuple[Rule, ...]] = NAME_RULES

    api_version: Literal["frazil.dev/v1alpha1"] = API_VERSION
    """The API's group and version."""
    kind: Literal["TrainingJob"] = "TrainingJob"
    """The kind."""
    metadata: ObjectMeta
    """Name, namespace, labels."""
    spec: TrainingJobSpec
    """What is wanted."""
    status: TrainingJobStatus | None = None
    """What is, as the operator last saw it."""
