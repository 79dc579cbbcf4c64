"""What is compared: one TrainingJob with each way to freeze. Model, cut, seed and batches are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.api.trainingjob import TrainingJob

PUBLISHED_RATIO: Final = "0.8"


@dataclass(frozen=True)
class Settings:
    """How long and how closely."""

    steps: int
    evaluations: int
    max_freeze_ratio: str
    """Of ours, and the ratio of uniform."""

    @property
    def warmup(self) -> int:
        """Steps until the learning rate is at its peak, and nothing is frozen."""
        return max(1, self.steps // 10)

    @property
    def monitoring(self) -> int:
        """Steps over which actions are timed; the published probe takes as many again with everything frozen."""
        return max(2, self.steps // 20)

    @property
    def ramp(self) -> int:
        """Steps until a plan is in full force."""
        return self.steps // 10

    @property
    def every(self) -> int:
        """Steps between evaluations."""
        return max(1, self.steps // self.evaluations)


def freezing_of(method: str, settings: Settings) -> Freezing:
    """The `spec.freezing` of a method. That of uniform lacks its plan, which is replayed."""
    if method == "none":
        return Freezing(method="None")
    phases = {"warmup_steps": settings.warmup, "monitor_steps": settings.monitoring, "ramp_steps": settings.ramp}
    if method != "published":
        return Freezing(**phases, max_freeze_ratio=settings.max_freeze_ratio)
    return Freezing(
        **phases,
        selection="Uniform",
        slack_percent="0",
        max_freeze_ratio=PUBLISHED_RATIO,
        probe="AllFrozen",
        redraw_every=10,
        replan_drift_percent="0",
        rescale_gradients=False,
    )


def job_of(job: TrainingJob, method: str, settings: Settings) -> TrainingJob:
    """The job that a method trains. The learning rate stays at its peak after the warm-up, so that the time to a loss
    doesn't hang on the number of steps; numbers are float32, which CPUs are best at."""
    spec = job.spec
    changed = spec.model_copy(
        update={
            "steps": settings.steps,
            "precision": "float32",
            "freezing": freezing_of(method, settings),
            "optimizer": spec.optimizer.model_copy(update={"schedule": "Constant", "warmup_steps": settings.warmup}),
            "evaluation": spec.evaluation.model_copy(update={"every_steps": settings.every}),
        }
    )
    return job.model_copy(update={"spec": changed})
