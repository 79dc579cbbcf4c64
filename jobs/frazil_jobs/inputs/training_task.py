"""What the pods of one attempt of a TrainingJob have to do, and how checkpoints are named. Knows no store.

    checkpoints/step-00000500-a2/…          what the ranks wrote, by attempt 2
    checkpoints/step-00000500-a2/COMMITTED  written last, when all of it is stored

A folder without the marker is the rest of an attempt that was lost, and counts for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import TryAgain
from frazil_jobs.base.files import write_atomically

FOLDER: Final = "checkpoints"
MARKER: Final = "COMMITTED"
_NAME: Final = re.compile(r"step-(\d{8,})-a(\d+)")
_TASK: Final = Path("input") / "training.json"


@dataclass(frozen=True, order=True)
class Checkpoint:
    """One checkpoint: its optimizer step and the attempt that wrote it. Ordered by step, then attempt."""

    step: int
    attempt: int

    @property
    def folder(self) -> str:
        """Below the job's prefix."""
        return f"{FOLDER}/step-{self.step:08d}-a{self.attempt}"

    @property
    def marker(self) -> str:
        """The key that commits it."""
        return f"{self.folder}/{MARKER}"


def newest(keys: Iterable[str]) -> Checkpoint | None:
    """The newest committed one, of keys below `checkpoints/`."""
    found = [
        Checkpoint(int(match[1]), int(match[2]))
        for key in keys
        if (match := re.fullmatch(rf"{FOLDER}/{_NAME.pattern}/{MARKER}", key))
    ]
    return max(found, default=None)


class TrainingTask(BaseModel):
    """What the pods of one attempt have to do. Written by `fetch`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: TrainingJob
    uid: str
    prefix: str
    attempt: int
    resume_step: int | None = None
    """Step of the checkpoint that this attempt goes on from; None: it begins anew."""
    resume: Path | None = None
    """Folder with that checkpoint's files."""

    def write(self, spool: Path) -> None:
        """Leave it in the spool, whole or not at all."""
        path = spool / _TASK
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.model_dump_json(by_alias=True))

    @classmethod
    def read(cls, spool: Path) -> TrainingTask:
        """The task below `spool`. Raises TryAgain when `fetch` has not written one."""
        try:
            return cls.model_validate_json((spool / _TASK).read_bytes())
        except FileNotFoundError:
            raise TryAgain(
                f"there is no task at {spool / _TASK}", remedy="`frazil_jobs.inputs.fetch` writes it; run it first"
            ) from None
