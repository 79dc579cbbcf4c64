"""How the ranks of a replica share one image, and where the approximate modes approximate."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from frazil_jobs.api.base import PSNR_PATTERN, ApiModel, Decimal, Rule

Mode = Literal["Exact", "Hybrid", "Guided"]


class Switching(ApiModel):
    """Where the approximate modes approximate. Lengths are in percent of the steps, so that a setting means the same at
    any number of them. Not read in mode Exact.

    The defaults of Hybrid are the published ones for SDXL (arXiv 2602.21760, 50 steps). For SD3 it has
    slopeWindowPercent 30, slopeThreshold "0.005" and capPercent 80. To open the window at a given place set
    slopeThreshold "0" and capPercent."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.capPercent + self.windowPercent <= 100",
            "capPercent + windowPercent must not exceed 100: the window would go on after the last step",
            "windowPercent",
        ),
        Rule(
            "self.slopeWindowPercent <= self.capPercent",
            "must not exceed capPercent: the slope would never be known in time",
            "slopeWindowPercent",
        ),
    )

    window_percent: int = Field(default=10, ge=1, le=100)
    """Hybrid: length of the pipelined window (the paper's k = 5 of 50 steps). In the window guidance is off and
    activations are one step old, so longer is faster and further from exact."""
    slope_window_percent: int = Field(default=24, ge=1, le=100)
    """Hybrid: steps over which the slope of the discrepancy is taken (the paper's L = 12 of 50). The discrepancy is
    mean|conditional - unconditional| / mean|unconditional| of the predictions of one step."""
    slope_threshold: Decimal = "0.02"
    """Hybrid: the window opens once the discrepancy falls, but more slowly than this over as many steps as the whole
    run has: the paper's 0.0004 a step, times 50 steps. "0" never opens it before capPercent."""
    cap_percent: int = Field(default=30, ge=1, le=100)
    """Hybrid: the window opens here at the latest (the paper's step 15 of 50)."""
    budget: Annotated[str, Field(pattern=PSNR_PATTERN, max_length=7)] = "45"
    """Guided: the PSNR to the exact image, in decibels, that each image should keep. Higher is nearer and slower: 30 is
    visible side by side, 45 (the default) hardly ever, above 50 is below the steps of an 8-bit picture. "inf" allows no
    drift: the images are those of Exact, bit for bit."""
    predictor_order: int = Field(default=1, ge=0, le=2)
    """Guided: how deep features are forecast between full steps. 0 repeats the last, 1 (the default) goes on in a
    straight line through the last two, 2 through the last three."""
    refresh_every: int = Field(default=4, ge=1, le=100)
    """Guided: at most this many steps from one full step to the next, whatever the budget still allows. 1: every step
    is full."""


class Parallelism(ApiModel):
    """How the ranks of a replica share one image. conditioning x pipeline x sequence is the number of its GPUs; further
    GPUs are used by workers.replicas, each on images of its own."""

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
    """Ranks that share the guidance branches. 2 (the default) evaluates the prompt's branch and the negative prompt's
    on a rank each, which changes nothing in the images. 1 evaluates both on one rank."""
    pipeline: int = Field(default=1, ge=1, le=64)
    """Stages of the denoiser, one rank each. More than 1 needs mode Hybrid or Guided. In Guided with conditioning 2 each
    branch has a line of as many stages; with conditioning 1 (and an even number) all ranks are one line for the prompt's
    branch. A U-Net has two stages."""
    sequence: int = Field(default=1, ge=1, le=64)
    """Ranks that share the tokens of one branch (diffusers' own context parallelism), for transformers that have a plan
    for it. Changes images by rounding only (1e-5 relative in float32)."""
    mode: Mode = "Exact"
    """Exact (the default) changes nothing. Hybrid is the published method: guidance is dropped inside a window. Guided
    always keeps guidance, and forecasts deep features within `switching.budget`. The measured distance of the last two
    from Exact is in the manifest."""
    when_unguided: Literal["Fail", "OneRank"] = "Fail"
    """What to do with conditioning 2 when there is no second branch (guidance scale of 1 or less, distilled models).
    Fail refuses the job before weights are loaded. OneRank goes on with one rank a replica; the other GPUs would
    idle."""
    timeout_seconds: int = Field(default=600, ge=10, le=86_400)
    """Longest, in seconds, that a rank waits for another before all of them give up (exit code 75). At least several
    times the longest step: video at full size needs more than the default."""
    compare_with_exact: int = Field(default=1, ge=0, le=64)
    """Hybrid and Guided: how many of the job's own prompts are generated exactly as well, to state the distance in the
    manifest. Costs that many prompts; 0 turns it off."""
    switching: Switching = Field(default_factory=Switching)
