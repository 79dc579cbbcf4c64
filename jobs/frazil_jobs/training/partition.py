"""Which blocks are which stage's: the cut that `frazil plan` shows for the same job, from times counted from the model's
configuration. It follows from job and configuration alone, so each attempt makes the same one.
"""

from __future__ import annotations

from itertools import pairwise

from frazil_jobs.training.planning import partition
from frazil_jobs.training.planning.estimate import Device, estimate_job
from frazil_jobs.training.planning.models import ModelTime
from frazil_jobs.training.planning.program import FreezingSettings
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.tasks import Task


def stage_blocks(task: Task, order: ScheduleOrder) -> list[range]:
    """The blocks of each stage."""
    freezing = task.spec.freezing
    settings = FreezingSettings.of(freezing) if freezing.method == "Timely" else None
    cut = partition.cut(task.spec.parallelism.partition, model_time(task), order, settings)
    return [range(start, stop) for start, stop in pairwise(cut.bounds)]


def model_time(task: Task) -> ModelTime:
    """Counted times of a microbatch of the job, block by block."""
    return estimate_job(task.spec, task.shape(), Device())
