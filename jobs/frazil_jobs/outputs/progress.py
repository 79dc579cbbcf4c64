"""Progress of a shard: written by the leader into the spool, relayed by the uploader into Redis (`relay`).

It's a hint: it may be old, or gone, and nothing depends on it. Knows no Redis, so that the GPU container can write it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frazil_jobs.api.status import CheckpointStatus
from frazil_jobs.base.files import write_atomically

PROGRESS_FOLDER: Final = "progress"

State = Literal["Waiting", "Running", "Done", "Failed"]
P = TypeVar("P", bound=BaseModel)


class ShardProgress(BaseModel):
    """How far one shard is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    shard: int = Field(ge=0)
    total: int = Field(ge=0)
    """Outputs of the shard."""
    generated: int = Field(default=0, ge=0)
    """In the spool or stored."""
    stored: int = Field(default=0, ge=0)
    """Acknowledged by the store; the uploader's count."""
    step: int = 0
    """Denoising step of the batch in hand."""
    steps: int = 0
    images_per_second: float = 0.0
    state: State = "Waiting"
    updated_at: float = Field(default_factory=time.time)
    """Seconds since 1970."""

    def write(self, spool: Path) -> None:
        """Leave it in the spool."""
        folder = spool / PROGRESS_FOLDER
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{self.shard}.json", self.model_dump_json())


class TrainingProgress(BaseModel):
    """How far a TrainingJob is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["training"] = "training"
    shard: int = 0
    """There is one stream of progress."""
    step: int = Field(ge=0)
    """Optimizer steps that are done."""
    steps: int = Field(default=0, ge=0)
    """In all."""
    loss: float | None = None
    validation_loss: float | None = None
    accuracy: float | None = None
    """Of the newest evaluation, for tasks that have one."""
    phase: str = ""
    """Of freezing."""
    throughput: float | None = None
    """Samples a second."""
    freeze_ratio: float | None = None
    checkpoint: CheckpointStatus | None = None
    """The newest committed one, as in status.checkpoint."""
    updated_at: float = Field(default_factory=time.time)
    """Seconds since 1970."""

    def write(self, spool: Path) -> None:
        """Leave it in the spool."""
        folder = spool / PROGRESS_FOLDER
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "training.json", self.model_dump_json())


def spooled_progress(spool: Path) -> list[ShardProgress]:
    """What the leader of a GenerationJob's pod left, by shard. A file that makes no sense is left out."""
    return sorted(_read(spool, ShardProgress), key=lambda progress: progress.shard)


def spooled_training(spool: Path) -> list[TrainingProgress]:
    """What the leader of a TrainingJob left: one, or none."""
    return [] if not (spool / PROGRESS_FOLDER / "training.json").exists() else _read(spool, TrainingProgress)


def _read(spool: Path, kind: type[P]) -> list[P]:
    found = []
    for path in (spool / PROGRESS_FOLDER).glob("*.json"):
        try:
            found.append(kind.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            continue
    return found
