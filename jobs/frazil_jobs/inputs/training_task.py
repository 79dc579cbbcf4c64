"""What the pods of one attempt of a TrainingJob have to do. Knows no store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import TryAgain
from frazil_jobs.base.files import write_atomically
from frazil_jobs.inputs.dataset_files import DatasetFiles

_TASK: Final = Path("input") / "training.json"


class TrainingTask(BaseModel):
    """What the pods of one attempt have to do. Written by `fetch`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: TrainingJob
    uid: str
    prefix: str
    attempt: int
    model: Path
    """A folder in diffusers' or transformers' format, checked."""
    dataset: DatasetFiles
    """Checked, too."""
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
