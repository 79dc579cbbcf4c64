"""Checkpoints, written beside the training: state to files, files into the spool, and the marker when all is stored.

One thread a rank does it, on a process group of its own, so that its collectives meet none of the training's. At most one
checkpoint is in work: one that is due while the store is still behind is left out, and said so.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

from frazil_jobs.api.checkpoints import KEEP, Checkpoint
from frazil_jobs.base.log import get_logger
from frazil_jobs.outputs.spool import Entry, Spool
from frazil_jobs.training import state

ROUND_SECONDS: Final = 0.3
"""Between two questions of the ranks to each other whether all is stored."""
_OCTETS: Final = "application/octet-stream"

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Committed:
    """A checkpoint that is stored whole."""

    checkpoint: Checkpoint
    time: str
    """RFC 3339."""


@dataclass(kw_only=True)
class Checkpoints:
    """Writes them, one at a time."""

    spool: Spool
    folder: Path
    """Where files are written before they move into the spool: on its volume."""
    attempt: int
    keep: int
    group: dist.ProcessGroup | None
    """Of all ranks, on the CPU, for nothing else. None: one rank alone."""
    gave_up: Callable[[], bool] = lambda: False
    """Whether to wait no longer for the store."""
    newest: Committed | None = None
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="checkpoint"))
    _writing: Future[Committed | None] | None = None

    def busy(self) -> bool:
        """Whether one is being written. Raises what its writing raised."""
        self._look(0)
        return self._writing is not None

    def begin(self, step: int, tensors: dict[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Begin to write the state after `step` steps; returns at once. `facts` go into the marker."""
        assert self._writing is None, "one at a time"
        self._writing = self._pool.submit(self._write, Checkpoint(step, self.attempt), tensors, dict(facts))

    def wait(self, seconds: float) -> bool:
        """Wait until none is in work: False after `seconds`. Raises what the writing raised."""
        self._look(seconds)
        return self._writing is None

    def _look(self, seconds: float) -> None:
        if self._writing is None or not futures.wait([self._writing], timeout=seconds).done:
            return
        writing, self._writing = self._writing, None
        self.newest = writing.result() or self.newest

    def _write(
        self, checkpoint: Checkpoint, tensors: dict[str, torch.Tensor], facts: dict[str, Any]
    ) -> Committed | None:
        started = time.monotonic()
        size = sum(tensor.nbytes for tensor in tensors.values())
        if not together(lambda: self.spool.has_room(size), self.group, self.gave_up):
            return None
        folder = self.folder / checkpoint.folder.rpartition("/")[2]
        files = state.write(tensors, folder, self.group)
        tensors.clear()
        entries = [self.spool.take(f"{checkpoint.folder}/{path.name}", path, content_type=_OCTETS) for path in files]
        digests = {path.name: entry.sha256 for path, entry in zip(files, entries, strict=True)}
        if not all_stored(self.spool, entries, self.group, self.gave_up):
            return None
        shutil.rmtree(folder, ignore_errors=True)
        everything: list[dict[str, str]] = [digests]
        if self.group is not None:
            everything = [{}] * dist.get_world_size(self.group)
            dist.all_gather_object(everything, digests, group=self.group)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        markers = []
        if self.group is None or dist.get_rank(self.group) == 0:
            text = json.dumps(
                {
                    "step": checkpoint.step,
                    "attempt": checkpoint.attempt,
                    "time": now,
                    "files": {name: digest for part in everything for name, digest in part.items()},
                    **facts,
                },
                sort_keys=True,
            )
            markers.append(
                self.spool.add(
                    checkpoint.marker,
                    text.encode(),
                    content_type="application/json",
                    metadata={KEEP: str(self.keep)},
                    stop=self.gave_up,
                )
            )
        if not all_stored(self.spool, markers, self.group, self.gave_up):
            return None
        log.info("checkpoint committed", step=checkpoint.step, seconds=round(time.monotonic() - started, 1))
        return Committed(checkpoint=checkpoint, time=now)


def all_stored(
    spool: Spool, entries: list[Entry], group: dist.ProcessGroup | None, gave_up: Callable[[], bool]
) -> bool:
    """Wait until the store has the entries of every rank; False when some rank gave up. A collective."""
    return together(lambda: all(spool.is_stored(entry) for entry in entries), group, gave_up)


def together(done: Callable[[], bool], group: dist.ProcessGroup | None, gave_up: Callable[[], bool]) -> bool:
    """Wait until it's done on every rank; False when some rank gave up. A collective.

    In short rounds: however long a store is down, no collective runs into its time-out.
    """
    while True:
        missing = not done()
        tired = missing and gave_up()
        if group is not None:
            flags = torch.tensor([missing, tired], dtype=torch.int32)
            dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=group)
            missing, tired = (bool(flag) for flag in flags.tolist())
        if not missing or tired:
            return not missing
        time.sleep(ROUND_SECONDS)
