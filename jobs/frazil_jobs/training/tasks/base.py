"""What a task is: a library model with its cut, what a batch of rows becomes, and the loss.

A task is opened from the folder's configurations alone; weights come with `model`. Everything that can be wrong with model
and job is raised when it is opened.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.cutting import Cut, Stage
from frazil_jobs.training.planning.estimate import Shape

MODEL_FIELD: Final = "spec.model.uri"
EXTRA_FIELD: Final = "spec.dataset.extra"

Row = Mapping[str, Any]
"""One sample as the reader gives it."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one pipeline batch of this replica is; the first dimension of every tensor is the sample."""

    inputs: tuple[torch.Tensor, ...]
    """Of the first stage."""
    target: torch.Tensor
    """Of the loss."""
    kwargs: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Of every stage. They carry no gradient."""


class Task(ABC):
    """One kind of training."""

    cut: Cut
    blocks: int
    """Of the model: as many stages as this can be cut."""
    weights_name: str = "model"
    """Of the exported file, without its ending."""
    weights_folder: str = ""
    """Of the exported weights, below the exported folder."""

    def __init__(self, job: TrainingJob, folder: Path) -> None:
        self.job = job
        self.spec = job.spec
        self.folder = folder
        self.device = torch.device("cpu")

    @abstractmethod
    def model(self) -> nn.Module:
        """The whole library model in float32 on the CPU: the folder's weights, or those drawn with the job's seed."""

    @abstractmethod
    def shape(self) -> Shape:
        """What its stages' times are counted from."""

    @abstractmethod
    def sample(self) -> torch.Tensor:
        """One row of the model's primary input: its shape and number type."""

    @abstractmethod
    def batch(self, rows: Sequence[Row], *, draw: torch.Generator, training: bool) -> Batch:
        """The batch of `rows`, on the task's device. All that is drawn comes from `draw`."""

    @abstractmethod
    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Mean loss of a microbatch, of the model's output and its part of the target."""

    @abstractmethod
    def save_around(self, folder: Path) -> None:
        """Write all of the exported folder but the trained weights."""

    def to(self, device: torch.device) -> None:
        """Make batches on `device` from now on, and load there what they are made with (an autoencoder, a text encoder)."""
        self.device = device

    def stage(self, blocks: range, *, of: nn.Module | None = None) -> Stage:
        """The stage of these blocks, cut out of a `model`, which is taken apart (`of`; else of one of its own)."""
        return Stage(
            self.model() if of is None else of,
            self.cut,
            blocks=blocks,
            of=self.blocks,
            sample=self.sample(),
            checkpointed=self.spec.parallelism.activation_checkpointing,
        )


def check_stages(task: Task, stages: int) -> None:
    """Raise BadConfiguration when the model has fewer blocks than the job wants stages."""
    if task.blocks < stages:
        ranks = task.spec.parallelism.pipeline
        each = f" ({task.spec.parallelism.schedule} holds two a rank)" if stages > ranks else ""
        raise BadConfiguration(
            f"the model has {task.blocks} blocks, which can't be cut into {stages} stages{each}",
            field="spec.parallelism.pipeline",
            remedy=f"at most {task.blocks * ranks // stages} ranks with this schedule, or a model of more layers",
        )


def options(job: TrainingJob, known: Mapping[str, Any]) -> dict[str, Any]:
    """`dataset.extra` over its defaults. Raises BadConfiguration for a name that the task doesn't have, or another type."""
    found = dict(known)
    for name, value in job.spec.dataset.extra.items():
        if name not in known:
            has = ", ".join(sorted(known)) or "none"
            raise BadConfiguration(
                f"{job.spec.task} has no setting {name!r}", field=f"{EXTRA_FIELD}.{name}", remedy=f"settings: {has}"
            )
        default = known[name]
        fits = (
            isinstance(value, int | float) and not isinstance(value, bool)
            if isinstance(default, float)
            else (type(value) is type(default))
        )
        if not fits:
            raise BadConfiguration(
                f"{value!r} is no {type(default).__name__}",
                field=f"{EXTRA_FIELD}.{name}",
                remedy=f"such as {default!r}",
            )
        found[name] = value
    return found


def unsupported(name: str, known: Sequence[str], task: str) -> BadConfiguration:
    """The error for a model class that a task can't cut."""
    return BadConfiguration(
        f"task {task} can't train a {name}", field=MODEL_FIELD, remedy=f"classes it trains: {', '.join(known)}"
    )
