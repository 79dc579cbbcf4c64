"""Status of both kinds: of constant size, whatever the number of prompts, steps or pods.

Decimals are text and times are RFC 3339, as in the spec. Written by the operator alone, in one patch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from frazil_jobs.api.base import ApiModel

Phase = Literal["Suspended", "Queued", "Starting", "Running", "Restarting", "Storing", "Complete", "Failed"]
ConditionStatus = Literal["True", "False", "Unknown"]


Time = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
"""A time as RFC 3339: 2026-11-23T10:00:00Z."""
Number = Annotated[str, Field(max_length=20)]
"""A decimal as text."""


class StatusModel(ApiModel):
    """A part of a status: what a later version of the operator added is kept out of the way."""

    model_config = ApiModel.model_config | {"extra": "ignore"}


class Condition(StatusModel):
    """A condition as Kubernetes has them (metav1.Condition, KEP-1623)."""

    type: str = Field(min_length=1, max_length=316)
    """What it is about, such as PodsReady, OutputsStored, Complete or Failed."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: int | None = None
    """Generation of the spec (metadata.generation) that it was decided for. A smaller one is out of date."""
    last_transition_time: Time
    """When `status` last changed; a new reason or message alone doesn't move it."""
    reason: str = Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    """Why, in one CamelCase word."""
    message: str = Field(default="", max_length=32768)
    """Why, for people."""


class PromptsStatus(StatusModel):
    """What was found when the prompts were inspected."""

    count: int = Field(default=0, ge=0)
    """Rows of the prompts. Outputs are imagesPerPrompt times as many."""
    sha256: str = Field(default="", max_length=64)
    """sha256 of the prompts, pinned when they were inspected. A file that changes later fails its shards."""


class WorkersStatus(StatusModel):
    """The pods, by replica."""

    desired: int = Field(default=0, ge=0)
    """Replicas that are wanted now: workers.replicas, or the shards that are left if fewer."""
    active: int = Field(default=0, ge=0)
    """Replicas with pods that have not ended, ready or not."""
    ready: int = Field(default=0, ge=0)
    """Replicas whose pods all run and are ready."""
    selector: str = Field(default="", max_length=1024)
    """Label selector of the pods, for the scale subresource."""


class ShardsStatus(StatusModel):
    """The shards, as ranges of their indices."""

    total: int = Field(default=0, ge=0)
    """Shards of the job: the prompts divided by prompts.perShard, rounded up."""
    completed: str = Field(default="", max_length=4096)
    """Shards that are done, as ranges: "0-22,25". Ends with … when there are too many ranges; the count is always
    exact."""
    failed: str = Field(default="", max_length=4096)
    """Shards that have failed for good, as ranges."""
    completed_count: int = Field(default=0, ge=0)
    """How many shards are done."""
    failed_count: int = Field(default=0, ge=0)
    """How many shards have failed for good."""


class GenerationProgress(StatusModel):
    """How far the outputs are."""

    total: int = Field(default=0, ge=0)
    """Outputs that the job asks for: prompts times imagesPerPrompt."""
    generated: int = Field(default=0, ge=0)
    """Outputs that are made, stored or not yet."""
    stored: int = Field(default=0, ge=0)
    """Outputs that the store has acknowledged. Only these are safe."""
    failed: int = Field(default=0, ge=0)
    """Outputs of failed shards, which will not be made."""
    percent: int = Field(default=0, ge=0, le=100)
    """Stored of total, in percent, rounded down."""
    summary: str = Field(default="", max_length=64)
    """Stored of total, for people: "1180/5000"."""
    images_per_second: Number | None = None
    """Images a second over all replicas, of late: "3.2"."""
    estimated_remaining_seconds: int | None = Field(default=None, ge=0)
    """Seconds until the end at that rate."""
    last_update_time: Time | None = None
    """When this was last written, at most every few seconds."""


class OutputsStatus(StatusModel):
    """Where the results are."""

    uri: str = Field(default="", max_length=2048)
    """Prefix of the job: s3://bucket/prefix/namespace/name-uid8/."""
    manifest: str | None = Field(default=None, max_length=2048)
    """The manifest, once it's written."""
    gallery: str | None = Field(default=None, max_length=2048)
    """The gallery or the training report, once it's written."""
    bytes: int = Field(default=0, ge=0)
    """Size of all outputs, in bytes."""


class SchedulingStatus(StatusModel):
    """Who places the pods."""

    provider: str = Field(default="none", max_length=64)
    """Gang scheduling in use: native-v1beta1 (scheduling.k8s.io), volcano, coscheduling, or none."""
    queue: str | None = Field(default=None, max_length=253)
    """The LocalQueue that admits the job, if any."""
    message: str = Field(default="", max_length=1024)
    """What the queue or the scheduler says while QuotaReserved or GangScheduled is False; else empty."""


class ChildJob(StatusModel):
    """One child."""

    name: str = Field(max_length=253)
    """Name of the batch/v1 Job."""
    attempt: int = Field(ge=0)
    """Attempt that it belongs to."""
    active: int = Field(default=0, ge=0)
    """Pods that have not ended."""
    succeeded: int = Field(default=0, ge=0)
    """Pods that ended with exit code 0."""
    failed: int = Field(default=0, ge=0)
    """Pods that ended otherwise."""


class JobStatus(StatusModel):
    """The half of a status that both kinds share."""

    observed_generation: int | None = None
    """Generation of the spec that this status is about."""
    phase: Phase | None = None
    """Summary of the conditions, for people; nothing reads it back."""
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    """What is known, one condition a type. `kubectl wait --for=condition=Complete` waits for one."""
    start_time: Time | None = None
    """When the pods were last wanted; cleared by suspend."""
    completion_time: Time | None = None
    """When it became Complete or Failed."""
    attempt: int = Field(default=0, ge=0)
    """Number of the current attempt, from 0; part of the names of the children."""
    restarts: int = Field(default=0, ge=0)
    """Restarts that were charged to failurePolicy.maxRestarts. Disruptions are not among them."""
    workers: WorkersStatus = Field(default_factory=WorkersStatus)
    outputs: OutputsStatus = Field(default_factory=OutputsStatus)
    scheduling: SchedulingStatus = Field(default_factory=SchedulingStatus)
    jobs: list[ChildJob] = Field(default_factory=list, max_length=16)
    """batch/v1 Jobs of the job; the last 16 of them."""


class GenerationJobStatus(JobStatus):
    """What is known of a GenerationJob."""

    prompts: PromptsStatus = Field(default_factory=PromptsStatus)
    shards: ShardsStatus = Field(default_factory=ShardsStatus)
    progress: GenerationProgress = Field(default_factory=GenerationProgress)


class TrainingProgress(StatusModel):
    """How far the training is."""

    step: int = Field(default=0, ge=0)
    """Optimizer steps done."""
    total_steps: int = Field(default=0, ge=0)
    """Optimizer steps wanted."""
    summary: str = Field(default="", max_length=64)
    """Steps done of steps wanted, for people: "4200/10000"."""
    loss: Number | None = None
    """Training loss, a running mean: "0.2347"."""
    throughput: Number | None = None
    """Samples a second over all ranks, of late."""
    freeze_ratio: Number | None = None
    """Mean share, from 0 to 1, of the weight gradients that are skipped now: "0.21"."""
    step_seconds: Number | None = None
    """Seconds an optimizer step takes, of late: batchSize divided by throughput."""
    estimated_remaining_seconds: int | None = Field(default=None, ge=0)
    """Seconds until the end at that rate."""
    last_update_time: Time | None = None
    """When this was last written, at most every few seconds."""


class CheckpointStatus(StatusModel):
    """The newest committed checkpoint."""

    step: int = Field(default=0, ge=0)
    """Its optimizer step."""
    attempt: int = Field(default=0, ge=0)
    """The attempt that wrote it."""
    uri: str = Field(default="", max_length=2048)
    """Where it is: s3://bucket/prefix/…/checkpoints/…."""
    time: Time | None = None
    """When it was committed."""
    resumed_from_step: int | None = Field(default=None, ge=0)
    """Step of the checkpoint that the current attempt began from. Left out: it began anew."""


class TrainingJobStatus(JobStatus):
    """What is known of a TrainingJob."""

    progress: TrainingProgress = Field(default_factory=TrainingProgress)
    checkpoint: CheckpointStatus = Field(default_factory=CheckpointStatus)
