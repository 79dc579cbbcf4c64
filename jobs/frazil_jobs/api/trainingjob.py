"""TrainingJob: pipeline-parallel training that skips the backward work that does not pay."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from frazil_jobs.api.base import API_VERSION, ApiModel, Decimal, Rule, Uri
from frazil_jobs.api.common import (
    MANAGED_BY,
    NAME_RULES,
    FailurePolicy,
    GangWorkers,
    Model,
    ObjectMeta,
    Output,
    Scheduling,
    SecretRef,
)
from frazil_jobs.api.status import TrainingJobStatus

Task = Literal["DiffusionTransformer", "CausalLM", "ImageClassification"]
Schedule = Literal["GPipe", "1F1B", "Interleaved1F1B", "ZBV", "ZBH1"]


class Dataset(ApiModel):
    """What the model learns from."""

    RULES: ClassVar[tuple[Rule, ...]] = (Rule("self == oldSelf", "dataset is immutable: make a new job"),)

    uri: Uri
    """hf://datasets/org/name, s3://bucket/prefix, file:///folder or pvc://claim/folder."""
    format: Literal["Auto", "parquet", "jsonl", "webdataset", "imagefolder", "text"] = "Auto"
    """Format of the files; by their names by default."""
    revision: str | None = Field(default=None, max_length=255)
    """Revision of a hub data set. Pin a commit."""
    split: str = Field(default="train", min_length=1, max_length=127)
    """Split to train on."""
    validation_split: str | None = Field(default=None, max_length=127)
    """Split to evaluate on; a part of the training split is set aside by default."""
    secret_ref: SecretRef | None = None
    """Secret with read credentials of the data set's source."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further settings of the task's reader, such as columns or sequenceLength."""


class Optimizer(ApiModel):
    """How weights are updated."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("double(self.learningRate) > 0.0", "must be greater than 0", "learningRate"),
        Rule("self == oldSelf", "optimizer is immutable: make a new job"),
    )

    name: Literal["AdamW", "SGD"] = "AdamW"
    """Optimizer of torch."""
    learning_rate: Decimal = "0.0001"
    """Peak learning rate."""
    weight_decay: Decimal = "0.01"
    """Decoupled weight decay."""
    betas: list[Decimal] = Field(default_factory=lambda: ["0.9", "0.95"], min_length=2, max_length=2)
    """Averages of AdamW; for SGD the first is the momentum."""
    schedule: Literal["Constant", "Cosine", "Linear"] = "Cosine"
    """Learning rate after the warm-up."""
    warmup_steps: int = Field(default=100, ge=0, le=10_000_000)
    """Steps of linear warm-up."""
    clip_norm: Decimal = "1.0"
    """Norm of the gradient, over all ranks, above which it is scaled down. 0 turns clipping off."""
    ema: Decimal = "0"
    """Decay of an average of the weights, for the export ("0.999"). 0 keeps none."""


class TrainingParallelism(ApiModel):
    """How ranks share the model and the batch. pipeline times data ranks; each a GPU."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.microbatches >= self.pipeline",
            "fewer microbatches than pipeline stages leaves stages idle",
            "microbatches",
        ),
        Rule("self == oldSelf", "parallelism is immutable: make a new job"),
    )

    pipeline: int = Field(default=2, ge=1, le=64)
    """Ranks that hold the model's stages."""
    data: int = Field(default=1, ge=1, le=256)
    """Replicas of the pipeline, each on its own part of the batch."""
    schedule: Schedule = "1F1B"
    """Order of forward and backward work. Interleaved1F1B and ZBV have two stages a rank; ZBV and ZBH1 split the backward
    into input and weight gradients and fill bubbles with the latter."""
    microbatches: int = Field(default=8, ge=1, le=1024)
    """Parts of a batch that follow each other through the pipeline."""
    partition: Literal["Uniform", "Balanced"] = "Balanced"
    """Cut of the model into stages: the same number of blocks each, or the same measured time."""


class Freezing(ApiModel):
    """Which backward work is skipped. Method Timely with selection Uniform, slackPercent "0" and partition Uniform is the
    published TimelyFreeze (arXiv 2602.05754); the defaults are Frazil's."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("double(self.maxFreezeRatio) <= 1.0", "must be between 0 and 1", "maxFreezeRatio"),
        Rule("self == oldSelf", "freezing is immutable: make a new job"),
    )

    method: Literal["None", "APF", "AutoFreeze", "Timely"] = "Timely"
    """None freezes nothing. APF and AutoFreeze freeze by a metric, whatever the schedule. Timely solves for what pays."""
    selection: Literal["Uniform", "APF", "AutoFreeze", "CostAware"] = "CostAware"
    """Which tensors fill the planned ratio: drawn by number (published), by a metric, or stratified by their cost."""
    max_freeze_ratio: Decimal = "0.3"
    """Largest mean ratio of a stage. Up to about 0.3 freezing is free in samples a second; the paper used 0.8."""
    slack_percent: Decimal = "1"
    """How much longer than the shortest step a plan may be to freeze less."""
    warmup_steps: int | None = Field(default=None, ge=0, le=10_000_000)
    """Steps before anything is measured; by default until the learning rate has warmed up."""
    monitor_steps: int = Field(default=50, ge=1, le=100_000)
    """Steps over which actions are timed."""
    ramp_steps: int = Field(default=100, ge=0, le=10_000_000)
    """Steps over which the ratio grows to its plan."""
    probe: Literal["Regression", "AllFrozen"] = "Regression"
    """How the time of a frozen action is learned: from the steps as they are, or (published) by freezing all for a while."""
    rescale_gradients: bool = True
    """Divide each tensor's gradient by the share of microbatches that computed it."""


class Checkpoint(ApiModel):
    """When the state is stored, and what a new attempt begins from."""

    every_steps: int = Field(default=500, ge=1, le=10_000_000)
    """Steps between checkpoints."""
    keep_last: int = Field(default=3, ge=1, le=100)
    """Committed checkpoints that are kept."""
    resume: Literal["Latest", "Never"] = "Latest"
    """Latest goes on from the newest committed checkpoint of this job."""


class Evaluation(ApiModel):
    """When the validation loss is measured."""

    every_steps: int = Field(default=500, ge=0, le=10_000_000)
    """Steps between evaluations; 0 for none."""
    batches: int = Field(default=16, ge=1, le=100_000)
    """Batches of each."""


class TrainingOutput(Output):
    """Where checkpoints, the trained model and the report go."""

    report: bool = True
    """Write a page with loss, throughput, freeze ratios and the schedule before and after."""


class TrainingJobSpec(ApiModel):
    """What is wanted of a TrainingJob."""

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
        Rule("self.steps >= oldSelf.steps", "may only grow", "steps"),
        Rule("self.workers == oldSelf.workers", "are immutable: make a new job", "workers"),
        Rule("self.task == oldSelf.task", "is immutable: make a new job", "task"),
        Rule("self.batchSize == oldSelf.batchSize", "is immutable: make a new job", "batchSize"),
        Rule("self.accumulation == oldSelf.accumulation", "is immutable: make a new job", "accumulation"),
        Rule("self.seed == oldSelf.seed", "is immutable: make a new job", "seed"),
        Rule("self.managedBy == oldSelf.managedBy", "is immutable", "managedBy"),
    )

    suspend: bool = False
    """Stop the pods after a checkpoint; false resumes from it."""
    managed_by: Literal["frazil.dev/operator", "kueue.x-k8s.io/multikueue"] = MANAGED_BY
    """Controller that acts on the job."""
    task: Task
    """What is trained, and by which loss."""
    model: Model
    """A pretrained folder, or a config alone to begin from random weights."""
    dataset: Dataset
    """What it learns from."""
    steps: int = Field(ge=1, le=1_000_000_000)
    """Optimizer steps. May grow while the job runs."""
    batch_size: int = Field(default=64, ge=1, le=1_000_000)
    """Samples of one optimizer step, over all ranks."""
    accumulation: int = Field(default=1, ge=1, le=1024)
    """Pipeline batches of one optimizer step."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Number type of forward and backward; weights are kept in float32."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of initial weights, order of the data, and masks."""
    optimizer: Optimizer = Field(default_factory=Optimizer)
    """How weights are updated."""
    parallelism: TrainingParallelism = Field(default_factory=TrainingParallelism)
    """How ranks share the work."""
    freezing: Freezing = Field(default_factory=Freezing)
    """Which backward work is skipped."""
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    """When the state is stored."""
    evaluation: Evaluation = Field(default_factory=Evaluation)
    """When the validation loss is measured."""
    workers: GangWorkers = Field(default_factory=GangWorkers)
    """The pods: a gang of one size."""
    scheduling: Scheduling = Field(default_factory=Scheduling)
    """Queue, priority, gang."""
    failure_policy: FailurePolicy = Field(default_factory=FailurePolicy)
    """What a failure costs."""
    pre_running_deadline_seconds: int | None = Field(default=None, ge=1)
    """Fail when the gang doesn't run within this time."""
    active_deadline_seconds: int | None = Field(default=None, ge=1)
    """Fail when it runs longer than this; counted again after a resume."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)
    """Delete the job this long after it finished. The results stay unless output.whenDeleted says otherwise."""
    output: TrainingOutput = Field(default_factory=TrainingOutput)
    """Where results go."""


class TrainingJob(ApiModel):
    """Pipeline-parallel training that skips the backward work that does not pay."""

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
