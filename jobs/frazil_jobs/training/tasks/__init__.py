"""What can be trained: one class a task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.training.tasks.base import Batch, Task, check_stages
from frazil_jobs.training.tasks.causal_lm import CausalLM
from frazil_jobs.training.tasks.diffusion import DiffusionTransformer
from frazil_jobs.training.tasks.image_classification import ImageClassification

__all__ = [
    "TASKS",
    "Batch",
    "CausalLM",
    "DiffusionTransformer",
    "ImageClassification",
    "Task",
    "check_stages",
    "open_task",
]

TASKS: Final[Mapping[str, type[Task]]] = {
    "CausalLM": CausalLM,
    "DiffusionTransformer": DiffusionTransformer,
    "ImageClassification": ImageClassification,
}


def open_task(job: TrainingJob, folder: Path) -> Task:
    """The task of a job, its model's configurations read and checked. Raises BadConfiguration."""
    return TASKS[job.spec.task](job, folder)
