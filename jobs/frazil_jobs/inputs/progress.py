"""How far `fetch` is: one small file in the spool, from which the command line draws its bar."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from frazil_jobs.base.files import write_atomically
from frazil_jobs.base.log import get_logger
from frazil_jobs.inputs.task import FETCH_FILE, input_folder

INTERVAL_SECONDS = 0.5
"""Between two looks at how much of a download is on disk."""
LOG_SECONDS = 15.0
"""Between two log lines about one download."""

State = Literal["prompts", "dataset", "model", "pictures", "stored", "done", "failed"]
Report = Callable[[str, int, int], None]
"""Called with what is being fetched, bytes there and bytes in all."""


class FetchProgress(BaseModel):
    """What `fetch` does now."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: State
    what: str = ""
    """The model, LoRA or file in hand, or the error of a fetch that failed."""
    done: int = 0
    """Bytes of it that are there."""
    total: int = 0
    updated_at: datetime

    @classmethod
    def read(cls, spool: Path) -> FetchProgress | None:
        """The progress below `spool`; None before there is any."""
        try:
            return cls.model_validate_json((input_folder(spool) / FETCH_FILE).read_bytes())
        except (FileNotFoundError, ValueError):
            return None


class ProgressFile:
    """Writes FetchProgress into one spool. A disk that takes no progress stops no fetch."""

    def __init__(self, spool: Path) -> None:
        self._path = input_folder(spool) / FETCH_FILE

    def write(self, state: State, what: str = "", done: int = 0, total: int = 0) -> None:
        """Replace what is there."""
        progress = FetchProgress(state=state, what=what, done=done, total=total, updated_at=datetime.now(UTC))
        try:
            write_atomically(self._path, progress.model_dump_json())
        except OSError as error:
            get_logger().warning("fetch progress not written", error=str(error))


def quiet(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""


@contextmanager
def watched(report: Report, what: str, total: int, measure: Callable[[], int]) -> Iterator[None]:
    """While the block runs, `measure` the bytes on disk now and then, report them and log them more rarely."""
    stop = threading.Event()

    def watch() -> None:
        started = logged = time.monotonic()
        while not stop.wait(INTERVAL_SECONDS):
            done = min(measure(), total)
            report(what, done, total)
            if time.monotonic() - logged >= LOG_SECONDS:
                logged = time.monotonic()
                get_logger().info("fetching", what=what, bytes=done, of=total, seconds=round(logged - started))

    report(what, min(measure(), total), total)
    thread = threading.Thread(target=watch, daemon=True, name="fetch-progress")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    report(what, total, total)


def bytes_below(folder: Path) -> int:
    """Bytes of all files below `folder`, whatever happens to them meanwhile."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue
    return total
