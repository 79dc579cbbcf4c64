"""Status of both kinds: of constant size, whatever the number of prompts, steps or pods."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from frazil_jobs.api.base import ApiModel

Phase = Literal["Suspended", "Queued", "Starting", "Running", "Restarting", "Storing", "Complete", "Failed"]
ConditionStatus = Literal["True", "False", "Unknown"]


class StatusModel(ApiModel):
    """A part of a status: what a later version of the operator added is kept out of the way."""

    model_config = ApiModel.model_config | {"extra": "ignore"}


class Condition(StatusModel):
    """A condition as Kubernetes has them (metav1.Condition, KEP-1623)."""

    type: str = Field(min_length=1, max_length=316)
    """What it is about; see `conditions.py`."""
    status: ConditionStatus
    """True, False or Unknown."""
    observed_generation: int | None = None
    """Generation of the spec that it was decided for."""
    last_transition_time: str = Field(max_length=40, json_schema_extra={"format": "date-time"})
    """When `status` last changed."""
    reason: str = Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    """Why, in one CamelCase word."""
    message: str = Field(default="", max_length=32768)
    """Why, for people."""


class PromptsStatus(StatusModel):
    """What was found when the prompts were inspected."""

    count: int = Field(default=0, ge=0)
    """Prompts."""
    sha256: str = Field(default="", max_length=64)
    """Of the prompt file; a file that changes later fails its shards."""


class WorkersStatus(StatusModel):
    """The pods."""

    desired: int = Field(default=0, ge=0)
    """Replicas that are wanted now."""
    active: int = Field(default=0, ge=0)
    """Replicas with pods that have not ended."""
    ready: int = Field(default=0, ge=0)
    """Replicas whose pods all run and are ready."""
    selector: str = Field(default="", max_length=1024)
    """Label selector of the pods, for the scale subresource."""


class ShardsStatus(StatusModel):
    """The shards, as ranges of their indices."""

    total: int = Field(default=0, ge=0)
    """Shards of the job."""
    completed: str = Field(default="", max_length=4096)
    """Those that are done: "0-22,25"."""
    failed: str = Field(default="", max_length=4096)
    """Those that have failed for good."""
    completed_count: int = Field(default=0, ge=0)
    """How many are done."""
    failed_count: int = Field(default=0, ge=0)
    """How many have failed."""


class GenerationProgress(StatusModel):
    """How far the outputs are."""

    total: int = Field(default=0, ge=0)
    """Outputs that the job asks for."""
    generated: int = Field(default=0, ge=0)
    """Made, stored or not."""
    stored: int = Field(default=0, ge=0)
    """Acknowledged by the store."""
    failed: int = Field(default=0, ge=0)
    """Of failed shards."""
    percent: int = Field(default=0, ge=0, le=100)
    """Stored of total."""
    summary: str = Field(default="", max_length=64)
    """ "1180/5000": stored of total."""
    images_per_second: str | None = Field(default=None, max_length=20)
    """Over all replicas, lately."""
    estimated_remaining_seconds: int | None = Field(default=None, ge=0)
    """At that rate."""
    last_update_time: str | None = Field(default=None, max_length=40, json_schema_extra={"format": "date-time"})
    """When this changed."""


class OutputsStatus(StatusModel):
    """Where the results are."""

    uri: str = Field(default="", max_length=2048)
    """Prefix of the job: s3://bucket/prefix/namespace/name-uid8/."""
    manifest: str | None = Field(default=None, max_length=2048)
    """The manifest, once it's written."""
    gallery: str | None = Field(default=None, max_length=2048)
    """The gallery or the training report, once it's written."""
    bytes: int = Field(default=0, ge=0)
    """Size of all outputs."""


class SchedulingStatus(StatusModel):
    """Who places the pods."""

    provider: str = Field(default="none", max_length=64)
    """Gang scheduling in use: native-v1beta1, volcano, coscheduling, or none."""
    queue: str | None = Field(default=None, max_length=253)
    """The queue that admits the job."""
    message: str = Field(default="", max_length=1024)
    """What it waits for."""


class ChildJob(StatusModel):
    """One child of the current attempt."""

    name: str = Field(max_length=253)
    """Name of the batch/v1 Job."""
    attempt: int = Field(ge=0)
    """Its attempt."""
    active: int = Field(default=0, ge=0)
    """Pods that run."""
    succeeded: int = Field(default=0, ge=0)
    """Pods that ended well."""
    failed: int = Field(default=0, ge=0)
    """Pods that failed."""


class JobStatus(StatusModel):
    """The half of a status that both kinds share."""

    observed_generation: int | None = None
    """Generation of the spec that this status is about."""
    phase: Phase | None = None
    """Summary of the conditions, for people; nothing reads it back."""
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    """What is known, by type."""
    start_time: str | None = Field(default=None, max_length=40, json_schema_extra={"format": "date-time"})
    """When the pods were last wanted; cleared by suspend."""
    completion_time: str | None = Field(default=None, max_length=40, json_schema_extra={"format": "date-time"})
    """When it became Complete or Failed."""
    attempt: int = Field(default=0, ge=0)
    """The current attempt; names the children."""
    restarts: int = Field(default=0, ge=0)
    """Attempts that were charged to maxRestarts."""
    workers: WorkersStatus = Field(default_factory=WorkersStatus)
    """The pods."""
    outputs: OutputsStatus = Field(default_factory=OutputsStatus)
    """Where the results are."""
    scheduling: SchedulingStatus = Field(default_factory=SchedulingStatus)
    """Who places the pods."""
    jobs: list[ChildJob] = Field(default_factory=list, max_length=16)
    """Children of the current attempt."""


class GenerationJobStatus(JobStatus):
    """What is known of a GenerationJob."""

    prompts: PromptsStatus = Field(default_factory=PromptsStatus)
    """What was found in the prompts."""
    shards: ShardsStatus = Field(default_factory=ShardsStatus)
    """The shards."""
    progress: GenerationProgress = Field(default_factory=GenerationProgress)
    """How far it is."""


class TrainingProgress(StatusModel):
    """How far the training is."""

    step: int = Field(default=0, ge=0)
    """Optimizer steps done."""
    total_steps: int = Field(default=0, ge=0)
    """Optimizer steps wanted."""
    summary: str = Field(default="", max_length=64)
    """ "4200/10000"."""
    loss: str | None = Field(default=None, max_length=20)
    """Training loss, smoothed."""
    throughput: str | None = Field(default=None, max_length=20)
    """Samples a second."""
    freeze_ratio: str | None = Field(default=None, max_length=20)
    """Mean share of backward weight work that the plan skips."""
    step_seconds: str | None = Field(default=None, max_length=20)
    """Seconds a step, lately."""
    predicted_step_seconds: str | None = Field(default=None, max_length=20)
    """What the plan foresees."""
    estimated_remaining_seconds: int | None = Field(default=None, ge=0)
    """At that rate."""
    last_update_time: str | None = Field(default=None, max_length=40, json_schema_extra={"format": "date-time"})
    """When this changed."""


class CheckpointStatus(StatusModel):
    """The newest committed checkpoint."""

    step: int = Field(default=0, ge=0)
    """Its optimizer step."""
    attempt: int = Field(default=0, ge=0)
    """The attempt that wrote it."""
    uri: str = Field(default="", max_length=2048)
    """Where it is."""
    time: str | None = Field(default=None, max_length=40, json_schema_extra={"format": "date-time"})
    """When it was committed."""
    resumed_from_step: int | None = Field(default=None, ge=0)
    """The step that the current attempt began from."""


class TrainingJobStatus(JobStatus):
    """What is known of a TrainingJob."""

    progress: TrainingProgress = Field(default_factory=TrainingProgress)
    """How far it is."""
    checkpoint: CheckpointStatus = Field(default_factory=CheckpointStatus)
    """The newest committed checkpoint."""
