"""GenerationJob: a batch of prompts through a diffusion model."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from frazil_jobs.api.base import API_VERSION, KEY_PATTERN, ApiModel, ClassName, Decimal, Name, Rule, Seconds, Uri
from frazil_jobs.api.common import (
    MANAGED_BY,
    NAME_RULES,
    ManagedBy,
    Model,
    ObjectMeta,
    Output,
    Scheduling,
    ShardFailurePolicy,
)
from frazil_jobs.api.parallelism import Mode, Parallelism, Switching
from frazil_jobs.api.pods import Workers
from frazil_jobs.api.status import GenerationJobStatus

__all__ = [
    "GenerationJob",
    "GenerationJobSpec",
    "GenerationOutput",
    "Mode",
    "OutputFormat",
    "Parallelism",
    "PromptFormat",
    "Prompts",
    "Sampling",
    "SuccessPolicy",
    "Switching",
]

OutputFormat = Literal["png", "jpeg", "webp", "mp4", "wav"]
PromptFormat = Literal["Auto", "jsonl", "csv", "parquet"]


class ConfigMapKeyRef(ApiModel):
    """A prompt file in a ConfigMap of the job's namespace (up to 1 MiB). On a cluster only."""

    name: Name
    """Name of the ConfigMap."""
    key: str = Field(min_length=1, max_length=253, pattern=KEY_PATTERN)
    """Its key, such as prompts.jsonl; the ending says the format unless `format` does."""


class Prompts(ApiModel):
    """What to generate. Set exactly one of inline, configMapRef and uri. Every row is read, checked and counted before
    any GPU is taken, and the file's sha256 is pinned in the status: a file that changes later fails its shards."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.inline), has(self.configMapRef), has(self.uri)].filter(x, x).size() == 1",
            "set exactly one of inline, configMapRef, uri",
        ),
        Rule(
            "!has(self.uri) || !self.uri.contains('://')"
            " || ['s3://', 'file://', 'pvc://'].exists(s, self.uri.startsWith(s))",
            "must be a path or begin with one of s3://, file://, pvc://",
            "uri",
        ),
        Rule("self == oldSelf", "prompts are immutable: make a new job"),
    )

    inline: list[Annotated[str, Field(min_length=1, max_length=2048)]] | None = Field(
        default=None, min_length=1, max_length=256
    )
    """Prompts written here, at most 256 of 2,048 characters. For more, or for seeds and pictures of their own, use a
    file."""
    config_map_ref: ConfigMapKeyRef | None = None
    uri: Uri | None = None
    """A prompt file: s3://bucket/key, pvc://claim/path or file:///path; locally also a path beside the job file. Each
    row has `prompt`, and may have `negative_prompt`, `seed`, `id`, `images` (pictures by the name of the pipeline's
    argument, such as image or mask_image) and `extra` (further arguments of its own). At most 1,000,000 rows."""
    format: PromptFormat = "Auto"
    """Format of the file. jsonl: one JSON object a line. csv: with a header. parquet: one column a field. Auto: by its
    ending."""
    per_shard: int = Field(default=16, ge=1, le=4096)
    """Prompts that are generated, counted and tried again together. Each shard's pod loads the model once: choose it so
    that a shard takes minutes, not seconds, and loses no more than that when a node dies."""


class Sampling(ApiModel):
    """How each image is sampled. What is left out is the pipeline's own default, which `frazil plan` shows."""

    RULES: ClassVar[tuple[Rule, ...]] = (Rule("self == oldSelf", "sampling is immutable: make a new job"),)

    steps: int | None = Field(default=None, ge=1, le=1000)
    """Denoising steps, such as 50. Time grows in proportion."""
    guidance_scale: Decimal | None = None
    """Classifier-free guidance, such as "5.0": prediction = unconditional + scale * (conditional - unconditional). 1 or
    less is none, and then there is one branch only. For Flux it is the distilled guidance; true guidance is
    extra.true_cfg_scale."""
    height: int | None = Field(default=None, ge=8, le=16384)
    """Height in pixels. Most models ask for a multiple of 8 or 16."""
    width: int | None = Field(default=None, ge=8, le=16384)
    """Width in pixels. Most models ask for a multiple of 8 or 16."""
    frames: int | None = Field(default=None, ge=1, le=100_000)
    """Frames of a video (81 for Wan). Only with output.format mp4."""
    frames_per_second: int | None = Field(default=None, ge=1, le=240)
    """Frames a second of the video file, and of the model where it takes them. Only with output.format mp4."""
    scheduler: ClassName | None = None
    """Scheduler of diffusers, such as EulerDiscreteScheduler, with the folder's own settings. Left out: the folder's
    own. Ancestral and SDE schedulers draw noise at each step, which Hybrid and Guided can't follow."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of the first image. Image j of prompt i has seed + i + j * 2^20 (modulo 2^32), whatever the shards, replicas
    and ranks; a row may have a seed of its own in place of seed + i."""
    negative_prompt: str | None = Field(default=None, max_length=10_000)
    """Negative prompt of all rows that have none of their own. Left out: the pipeline's own (most often the empty
    text)."""
    batch_size: int = Field(default=1, ge=1, le=256)
    """Images of one denoiser call. More use a GPU better and take more of its memory. Part of the job, since kernels
    may sum in another order at another size, which moves the last bits of an image."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the pipeline's call, in its own spelling, such as guidance_rescale: 0.3,
    true_cfg_scale: 4.0 or strength: 0.6. Numbers are numbers here, not text. Checked against the pipeline before
    weights are loaded."""


class SuccessPolicy(ApiModel):
    """When a job counts as done."""

    min_stored_percent: int = Field(default=100, ge=1, le=100)
    """Least share of the outputs, in percent, that must be in the store for the job to be Complete. Below 100 only
    helps where failurePolicy.maxFailedShards lets shards fail."""


class GenerationOutput(Output):
    """Where results go, and as what."""

    format: OutputFormat = "png"
    """png (lossless, the default), jpeg or webp for pictures, mp4 for video, wav for sound. Settings and seed are kept
    in the object's metadata and the manifest."""
    gallery: bool = True
    """Write index.html beside the manifest: one page with thumbnails, prompts, seeds and settings, that needs no
    server."""


class GenerationJobSpec(ApiModel):
    """What is wanted of a GenerationJob. `suspend`, workers.replicas, scheduling, policies and deadlines may change
    while it runs; what decides the images may not."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.parallelism.conditioning * self.parallelism.pipeline * self.parallelism.sequence"
            " == self.workers.nodesPerReplica * self.workers.gpusPerNode",
            "conditioning * pipeline * sequence must equal workers.nodesPerReplica * workers.gpusPerNode",
            "parallelism",
        ),
        Rule(
            "self.scheduling.gang != 'Required' || !has(self.workers.minReplicas)",
            "a queue that admits in parts (workers.minReplicas) can't be combined with gang: Required",
            "scheduling.gang",
        ),
        Rule(
            "!has(self.sampling.frames) || self.output.format == 'mp4'",
            "frames are for output.format mp4",
            "sampling.frames",
        ),
        Rule(
            "!has(self.sampling.framesPerSecond) || self.output.format == 'mp4'",
            "a frame rate is for output.format mp4",
            "sampling.framesPerSecond",
        ),
        Rule(
            "self.parallelism.mode != 'Hybrid' || !has(self.sampling.steps)"
            " || (self.sampling.steps * self.parallelism.switching.windowPercent >= 100"
            " && self.sampling.steps * self.parallelism.switching.slopeWindowPercent >= 200)",
            "too few for Hybrid: windowPercent of them must be at least one step, and slopeWindowPercent at least two;"
            " use mode Exact or Guided",
            "sampling.steps",
        ),
        Rule(
            "self.parallelism.mode != 'Guided' || !has(self.sampling.steps)"
            " || self.sampling.steps >= self.parallelism.switching.predictorOrder + 2",
            "too few for Guided: it forecasts from switching.predictorOrder + 1 full steps; use mode Exact",
            "sampling.steps",
        ),
        Rule("self.managedBy == oldSelf.managedBy", "is immutable: make a new job", "managedBy"),
        Rule("self.imagesPerPrompt == oldSelf.imagesPerPrompt", "is immutable: make a new job", "imagesPerPrompt"),
    )

    suspend: bool = False
    """true stops the pods and gives their GPUs back; what is stored stays. false goes on with what is missing."""
    managed_by: ManagedBy = MANAGED_BY
    """Controller that acts on the job: Frazil's own, or Kueue's MultiKueue, which runs it in another cluster."""
    model: Model
    prompts: Prompts
    images_per_prompt: int = Field(default=1, ge=1, le=1024)
    """Images of each prompt, each with a seed of its own. More leave the others as they are."""
    sampling: Sampling = Field(default_factory=Sampling)
    parallelism: Parallelism = Field(default_factory=Parallelism)
    """By default one rank a guidance branch, exactly."""
    workers: Workers = Field(default_factory=Workers)
    """By default one pod of two GPUs."""
    scheduling: Scheduling = Field(default_factory=Scheduling)
    failure_policy: ShardFailurePolicy = Field(default_factory=ShardFailurePolicy)
    success_policy: SuccessPolicy = Field(default_factory=SuccessPolicy)
    pre_running_deadline_seconds: Seconds | None = None
    """Fail the job when no replica is ready within so many seconds of being admitted, for instance since the image
    can't be pulled. Waiting in a queue isn't counted. Left out: wait for ever."""
    active_deadline_seconds: Seconds | None = None
    """Fail the job when it has run for so many seconds. Counted from the start, and anew after each resume; outputs
    that are stored stay. Left out: no limit."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """Delete the job and its pods so many seconds after it finished. Results stay unless output.whenDeleted is Delete.
    Left out: never."""
    output: GenerationOutput = Field(default_factory=GenerationOutput)


class GenerationJob(ApiModel):
    """A batch of prompts through a diffusion model, over GPUs that share each image, with the results in object
    storage."""

    RULES: ClassVar[tuple[Rule, ...]] = NAME_RULES

    api_version: Literal["frazil.dev/v1alpha1"] = API_VERSION
    """The API's group and version."""
    kind: Literal["GenerationJob"] = "GenerationJob"
    """The kind."""
    metadata: ObjectMeta
    """Name, namespace, labels."""
    spec: GenerationJobSpec
    """What is wanted."""
    status: GenerationJobStatus | None = None
    """What is, as the operator last saw it."""
