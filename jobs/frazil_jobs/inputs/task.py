"""The task: all that the compute process of one pod is told, in one file below its spool.

`fetch` writes it last, so a task that exists is a task whose model, prompts and pictures are there. It holds no
credential and no address of a store or a broker. This module imports neither, so that the compute process can read it.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.base.exits import TryAgain
from frazil_jobs.base.files import write_atomically
from frazil_jobs.inputs.rows import PromptRow, PromptsPin

INPUT_FOLDER = "input"
"""Below the spool: what `fetch` leaves there."""
FILES_FOLDER = "files"
"""Below the input folder: pictures of rows, by sha256."""
TASK_FILE = "task.json"
FETCH_FILE = "fetch.json"
"""Below the input folder: how far `fetch` is (frazil_jobs.inputs.progress)."""


class LoraFile(BaseModel):
    """One LoRA, fetched: `path` is a safetensors file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    path: Path
    scale: float = 1.0


class Shard(BaseModel):
    """Consecutive prompts that are generated, counted and tried again together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int = Field(ge=0)
    first: int = Field(ge=0)
    """The prompt index (in the whole job, from 0) of `rows[0]`."""
    rows: list[PromptRow]


class Task(BaseModel):
    """What one pod has to do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    job: GenerationJob
    uid: str
    prefix: str
    """The job's prefix in the store: keys of outputs are below it, and outputs name them without it."""
    prompts: PromptsPin
    shards: list[Shard]
    model: Path
    """A folder in diffusers' own format, checked."""
    pipeline: str
    """The diffusers class that the folder is loaded with."""
    loras: list[LoraFile] = Field(default_factory=list)
    stored: dict[str, str | None] = Field(default_factory=dict)
    """Keys below the prefix that the store already holds for these shards, with their sha256 where listing tells it."""

    def write(self, spool: Path) -> Path:
        """Write the task into the spool, whole or not at all."""
        path = task_path(spool)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.model_dump_json(by_alias=True))
        return path

    @classmethod
    def read(cls, spool: Path) -> Task:
        """The task below `spool`. Raises TryAgain when `fetch` has not written one."""
        path = task_path(spool)
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise TryAgain(
                f"there is no task at {path}", remedy="`frazil_jobs.inputs.fetch` writes it; run it first"
            ) from None
        except ValidationError as error:
            raise TryAgain(
                f"the task at {path} was not written by this version of Frazil: {error.errors()[0]['msg']}",
                remedy="run `frazil_jobs.inputs.fetch` again",
            ) from None


def input_folder(spool: Path) -> Path:
    """Where `fetch` writes."""
    return spool / INPUT_FOLDER


def task_path(spool: Path) -> Path:
    """Where the task is."""
    return input_folder(spool) / TASK_FILE


def picture_path(spool: Path, name: str) -> Path:
    """The file of a picture that a row of the task names ("files/<sha256>.png"). Raises ValueError for other names."""
    relative = PurePosixPath(name)
    if relative.parts[:-1] != (FILES_FOLDER,) or relative.name.startswith("."):
        raise ValueError(f"{name!r} is not a picture of this task")
    return input_folder(spool).joinpath(*relative.parts)
