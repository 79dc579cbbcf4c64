"""How a TrainingJob's ranks share model and batch, and which backward work they skip."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from frazil_jobs.api.base import ApiModel, Decimal, Rule

Schedule = Literal["GPipe", "1F1B", "Interleaved1F1B", "ZBV", "ZBH1"]


class TrainingParallelism(ApiModel):
    """How ranks share the model and the batch: pipeline x data ranks, each a GPU."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.microbatches >= self.pipeline",
            "fewer microbatches than pipeline ranks leaves ranks idle: raise it to at least pipeline",
            "microbatches",
        ),
        Rule(
            "self.schedule != 'Interleaved1F1B' || self.microbatches < self.pipeline"
            " || self.microbatches % (self.microbatches / self.pipeline) == 0",
            "Interleaved1F1B takes microbatches in equal rounds: choose a multiple of pipeline",
            "microbatches",
        ),
        Rule(
            "self.pipeline > 1 || self.schedule in ['GPipe', '1F1B']",
            "Interleaved1F1B, ZBV and ZBH1 need at least two pipeline ranks",
            "schedule",
        ),
        Rule(
            "!self.activationCheckpointing || self.schedule in ['GPipe', '1F1B', 'Interleaved1F1B']",
            "a split backward (ZBV, ZBH1) would compute a block again for each of its weights: choose another schedule",
            "activationCheckpointing",
        ),
        Rule("self == oldSelf", "parallelism is immutable: make a new job"),
    )

    pipeline: int = Field(default=2, ge=1, le=64)
    """Ranks that hold the model's stages, one after the other. The model needs at least as many blocks as there are
    stages."""
    data: int = Field(default=1, ge=1, le=256)
    """Copies of the pipeline, each on its own part of the batch."""
    schedule: Schedule = "1F1B"
    """Order of forward and backward work. GPipe: all forwards, then all backwards. 1F1B (the default): alternating,
    which keeps fewer activations. Interleaved1F1B: two stages a rank, smaller bubbles, more messages. ZBV (two stages a
    rank, in a V) and ZBH1 (one) split the backward into input and weight gradients, and fill bubbles with the
    latter."""
    microbatches: int = Field(default=8, ge=1, le=1024)
    """Parts of a batch that follow each other through the pipeline. More make bubbles smaller; each should still fill a
    GPU. At least `pipeline`; 2 to 4 times as many are usual."""
    partition: Literal["Uniform", "Balanced"] = "Balanced"
    """Cut of the model into stages. Uniform (published): the same number of blocks each. Balanced (the default): the
    shortest step, by times counted from the model's config, since embeddings and heads make end stages slower, and the
    slowest stage sets the pace."""

    activation_checkpointing: bool = False
    """Keep of each block no more than its input, and compute the rest again in the backward: much less memory, for a
    step that is up to a third longer. The gradients are the same. Not with a split backward (ZBV, ZBH1)."""


class Freezing(ApiModel):
    """Which backward work is skipped. Freezing a tensor for one microbatch saves the computation of its weight gradient
    (dW).

    The defaults are Frazil's. Method Timely with selection Uniform, slackPercent "0" and parallelism.partition Uniform
    is the published TimelyFreeze (arXiv 2602.05754); its runs also had maxFreezeRatio "0.8", probe AllFrozen,
    redrawEvery 10, replanDriftPercent "0" and rescaleGradients false. With that probe and no new plans, the plan is made
    from the median time of each action for itself, without communication, as published."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("double(self.maxFreezeRatio) <= 1.0", "must be between 0 and 1", "maxFreezeRatio"),
        Rule("double(self.slackPercent) <= 100.0", "must be between 0 and 100", "slackPercent"),
        Rule("double(self.replanDriftPercent) <= 100.0", "must be between 0 and 100", "replanDriftPercent"),
        Rule("double(self.apfThreshold) <= 1.0", "must be between 0 and 1", "apfThreshold"),
        Rule("self == oldSelf", "freezing is immutable: make a new job"),
    )

    method: Literal["None", "APF", "AutoFreeze", "Timely"] = "Timely"
    """None freezes nothing. APF and AutoFreeze freeze the tensors that their metric calls stable, whatever the
    schedule. Timely (the default) finds by a linear program how much freezing of which action shortens the step, and
    freezes no more."""
    selection: Literal["Uniform", "APF", "AutoFreeze", "CostAware"] = "CostAware"
    """Timely: which tensors fill the planned ratios. Uniform (published) draws them by number. APF and AutoFreeze
    prefer what their metric calls stable. CostAware (the default) draws by the time that a tensor's dW takes, each kept
    its exact share."""
    max_freeze_ratio: Decimal = "0.3"
    """Timely: largest mean freeze ratio of a stage, from "0" to "1". Up to about 0.3 (the default), with four stages
    or more, a step of 1F1B gets shorter by as much as gradients get fewer. The paper had 0.8."""
    slack_percent: Decimal = "1"
    """Timely: how much longer than the shortest step a plan may take, in percent, to freeze less. "1" (the default)
    froze a fifth less on published timings, and doesn't follow their noise."""
    warmup_steps: int | None = Field(default=None, ge=0, le=10_000_000)
    """Timely: optimizer steps before anything is measured. Left out: optimizer.warmupSteps, since early steps are no
    model of later ones."""
    monitor_steps: int = Field(default=50, ge=1, le=100_000)
    """Timely: optimizer steps over which the times of actions are measured before the first plan."""
    ramp_steps: int = Field(default=100, ge=0, le=10_000_000)
    """Timely: optimizer steps over which ratios grow from 0 to their plan."""
    probe: Literal["Regression", "AllFrozen"] = "Regression"
    """Timely: how the time of a frozen action is learned. Regression (the default): from the steps as they are.
    AllFrozen (published): by freezing everything for as long as monitorSteps, in which nothing is learned."""
    replan_drift_percent: Decimal = "3"
    """Timely: the plan is made again when the measured step differs from the predicted one by more than this, in
    percent, for some time. "0" keeps the first plan (published)."""
    redraw_every: int = Field(default=1, ge=1, le=10_000)
    """Timely: optimizer steps between two draws of what is frozen. 1 (the default) spreads freezing most evenly;
    published: 10."""
    rescale_gradients: bool = True
    """Divide each tensor's gradient by the share of microbatches that computed it, so that freezing doesn't act as a
    smaller learning rate. Published: false."""
    apf_threshold: Decimal = "0.0001"
    """APF: a tensor is stable when the running mean of its changes is at most this part of the running mean of their
    size. Published: "0.0001" for 8B parameters, "0.01" for 1B."""
    auto_freeze_percentile: int = Field(default=80, ge=1, le=99)
    """AutoFreeze: layers from the front are frozen up to the first whose gradient norm changes as much as this
    percentile of them (published: 80)."""
