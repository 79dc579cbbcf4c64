"""GenerationJob: a batch of prompts through a diffusion model."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from frazil_jobs.api.base import API_VERSION, ApiModel, Decimal, Name, Rule, Uri
from frazil_jobs.api.common import MANAGED_BY, NAME_RULES, FailurePolicy, Model, ObjectMeta, Output, Scheduling, Workers
from frazil_jobs.api.status import GenerationJobStatus

OutputFormat = Literal["png", "jpeg", "webp", "mp4", "wav"]
PromptFormat = Literal["Auto", "jsonl", "csv", "parquet"]
Mode = Literal["Exact", "Hybrid", "Guided"]


class ConfigMapKeyRef(ApiModel):
    """A key of a ConfigMap in the job's namespace."""

    name: Name
    """Name of the ConfigMap."""
    key: str = Field(min_length=1, max_length=253)
    """Its key."""


class Prompts(ApiModel):
    """What to generate. Set exactly one of inline, configMapRef and uri."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.inline), has(self.configMapRef), has(self.uri)].filter(x, x).size() == 1",
            "set exactly one of inline, configMapRef, uri",
        ),
        Rule("self == oldSelf", "prompts are immutable: make a new job"),
    )

    inline: list[Annotated[str, Field(min_length=1, max_length=2048)]] | None = Field(
        default=None, min_length=1, max_length=256
    )
    """Prompts written here, at most 256."""
    config_map_ref: ConfigMapKeyRef | None = None
    """A prompt file in a ConfigMap."""
    uri: Uri | None = None
    """A prompt file: s3://bucket/key, or locally a path beside the job file."""
    format: PromptFormat = "Auto"
    """Format of the file; by its name by default."""
    per_shard: int = Field(default=16, ge=1, le=4096)
    """Prompts that are generated, counted and tried again together. Each shard's pod loads the model once: size it for
    minutes of work."""


class Sampling(ApiModel):
    """How each image is sampled. What is left out is the pipeline's own default."""

    RULES: ClassVar[tuple[Rule, ...]] = (Rule("self == oldSelf", "sampling is immutable: make a new job"),)

    steps: int | None = Field(default=None, ge=1, le=1000)
    """Denoising steps."""
    guidance_scale: Decimal | None = None
    """Classifier-free guidance; 1 or less is none. (Flux: its distilled guidance; true guidance is
    extra.true_cfg_scale.)"""
    height: int | None = Field(default=None, ge=8, le=16384)
    """Height in pixels."""
    width: int | None = Field(default=None, ge=8, le=16384)
    """Width in pixels."""
    frames: int | None = Field(default=None, ge=1, le=100_000)
    """Frames of a video."""
    frames_per_second: int | None = Field(default=None, ge=1, le=240)
    """Frame rate of the video file."""
    scheduler: str | None = Field(default=None, max_length=127, pattern=r"^[A-Z][A-Za-z0-9]*$")
    """Scheduler class of diffusers (EulerDiscreteScheduler); the folder's own by default."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Seed of the first image; the others' follow from it and their place alone."""
    negative_prompt: str | None = Field(default=None, max_length=10_000)
    """Negative prompt of all rows that have none of their own."""
    batch_size: int = Field(default=1, ge=1, le=256)
    """Images a denoiser call. Part of the job, since it can move the last bits of an image."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the pipeline's call, such as guidance_rescale, true_cfg_scale or strength."""


class Switching(ApiModel):
    """How the approximate modes decide where to approximate. Not read in mode Exact."""

    window_percent: int = Field(default=10, ge=1, le=100)
    """Hybrid: length of the pipelined window (k), in percent of the steps. The paper's 5 of 50."""
    slope_window_percent: int = Field(default=24, ge=2, le=100)
    """Hybrid: steps over which the slope of the branch discrepancy is taken (L), in percent. The paper's 12 of 50."""
    slope_threshold: Decimal = "0.0004"
    """Hybrid: the window opens when the discrepancy falls less than this a step."""
    cap_percent: int = Field(default=30, ge=1, le=100)
    """Hybrid: the window opens here at the latest, in percent of the steps. The paper's 15 of 50."""
    budget: Decimal = "45"
    """Guided: the least PSNR to exact, in dB, that an image should keep. Higher is nearer; "inf"-like values above 300
    allow no drift and are Exact."""
    predictor_order: int = Field(default=1, ge=0, le=2)
    """Guided: order of the forecast of deep features (0 repeats the last, 1 is linear, 2 quadratic)."""
    refresh_every: int = Field(default=4, ge=1, le=100)
    """Guided, with stages: steps between true split steps, at most."""


class Parallelism(ApiModel):
    """How the ranks of a replica share one image. The degrees multiply to nodesPerReplica times gpusPerNode."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.mode != 'Exact' || self.pipeline == 1",
            "pipeline stages change images: mode Exact has none; set it to 1, or mode to Hybrid or Guided",
            "pipeline",
        ),
        Rule(
            "self.mode != 'Hybrid' || self.conditioning == 2",
            "Hybrid begins from the condition split: set it to 2",
            "conditioning",
        ),
        Rule("self == oldSelf", "parallelism is immutable: make a new job"),
    )

    conditioning: int = Field(default=2, ge=1, le=2)
    """Ranks that share the guidance branches: 2 evaluates each branch on a rank of its own, exactly."""
    pipeline: int = Field(default=1, ge=1, le=64)
    """Stages of the denoiser. More than 1 needs an approximate mode."""
    sequence: int = Field(default=1, ge=1, le=64)
    """Ranks that share the tokens of a branch (diffusers' own context parallelism), for the models that have a plan."""
    mode: Mode = "Exact"
    """Exact changes nothing. Hybrid and Guided can change images; their distance from Exact is in the manifest."""
    when_unguided: Literal["Fail", "OneRank"] = "Fail"
    """What to do with conditioning 2 when there is no second branch (guidance scale of 1 or less, distilled models):
    refuse the job, or use one rank a replica."""
    timeout_seconds: int = Field(default=600, ge=10, le=86_400)
    """Longest that a rank waits for another in a step before the replica fails."""
    compare_with_exact: int = Field(default=1, ge=0, le=64)
    """Approximate modes: prompts of the job that are also generated exactly, to state the distance. 0 turns it off."""
    switching: Switching = Field(default_factory=Switching)
    """Where the approximate modes approximate."""


class SuccessPolicy(ApiModel):
    """When a job counts as done."""

    min_stored_percent: int = Field(default=100, ge=1, le=100)
    """Least share of the outputs that must be stored."""


class GenerationOutput(Output):
    """Where results go, and as what."""

    format: OutputFormat = "png"
    """png, jpeg or webp for pictures, mp4 for video, wav for sound."""
    gallery: bool = True
    """Write a page with all pictures beside the manifest."""


class GenerationJobSpec(ApiModel):
    """What is wanted of a GenerationJob."""

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
            "!has(self.sampling.frames) || self.output.format in ['mp4', 'wav']",
            "frames are for output.format mp4 or wav",
            "sampling.frames",
        ),
        Rule(
            "self.parallelism.mode == 'Exact' || !has(self.sampling.steps) || self.sampling.steps >= 15",
            "Hybrid and Guided need at least 15 steps; use mode Exact",
            "sampling.steps",
        ),
        Rule("self.managedBy == oldSelf.managedBy", "is immutable", "managedBy"),
        Rule("self.imagesPerPrompt == oldSelf.imagesPerPrompt", "is immutable: make a new job", "imagesPerPrompt"),
    )

    suspend: bool = False
    """Stop the pods, keeping what is stored; false resumes."""
    managed_by: Literal["frazil.dev/operator", "kueue.x-k8s.io/multikueue"] = MANAGED_BY
    """Controller that acts on the job."""
    model: Model
    """What is loaded."""
    prompts: Prompts
    """What to generate."""
    images_per_prompt: int = Field(default=1, ge=1, le=1024)
    """Images of each prompt, each with its own seed."""
    sampling: Sampling = Field(default_factory=Sampling)
    """How each image is sampled."""
    parallelism: Parallelism = Field(default_factory=Parallelism)
    """How ranks share one image."""
    workers: Workers = Field(default_factory=Workers)
    """The pods."""
    scheduling: Scheduling = Field(default_factory=Scheduling)
    """Queue, priority, gang."""
    failure_policy: FailurePolicy = Field(default_factory=FailurePolicy)
    """What a failure costs."""
    success_policy: SuccessPolicy = Field(default_factory=SuccessPolicy)
    """When it counts as done."""
    pre_running_deadline_seconds: int | None = Field(default=None, ge=1)
    """Fail when no pod runs within this time."""
    active_deadline_seconds: int | None = Field(default=None, ge=1)
    """Fail when it runs longer than this; counted again after a resume."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0)
    """Delete the job this long after it finished. The results stay unless output.whenDeleted says otherwise."""
    output: GenerationOutput = Field(default_factory=GenerationOutput)
    """Where results go."""


class GenerationJob(ApiModel):
    """A batch of prompts through a diffusion model."""

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
