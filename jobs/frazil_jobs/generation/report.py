"""The leader's progress into the spool, one small file a shard. The loop and the writer's thread both tell it.

Only what is made is counted here; what is stored is the uploader's to say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from frazil_jobs.generation.batches import Batch
from frazil_jobs.outputs.progress import ShardProgress, State

LEAST_SECONDS: Final = 0.4
"""Between two writes for mere steps; the begin and the end of a batch are written at once."""


@dataclass
class ShardCount:
    """One shard's outputs."""

    total: int = 0
    made: int = 0
    """In the spool or stored."""
    batches_left: int = 0
    failed: bool = False


@dataclass(kw_only=True)
class Report:
    """Counts outputs and writes ShardProgress."""

    spool: Path
    shards: dict[int, ShardCount]
    clock: Callable[[], float] = time.monotonic
    _batch: Batch | None = None
    _step: tuple[int, int] = (0, 0)
    _made_here: int = 0
    _began: float | None = None
    _written: float = float("-inf")
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def of(
        cls,
        spool: Path,
        shards: Mapping[int, int],
        batches: Iterable[Batch],
        stored: frozenset[str],
        *,
        failed: set[int],
    ) -> Report:
        """A report over all batches of a task, written once. `shards`: outputs of each; what is in `stored` is made."""
        counts = {shard: ShardCount(total=total, failed=shard in failed) for shard, total in shards.items()}
        for batch in batches:
            missing = len(batch.missing(stored))
            counts[batch.shard].made += len(batch.items) - missing
            counts[batch.shard].batches_left += bool(missing)
        report = cls(spool=spool, shards=counts)
        for shard in counts:
            report._write(shard)
        return report

    def begin(self, batch: Batch) -> None:
        """The loop begins `batch`."""
        with self._lock:
            self._began = self.clock() if self._began is None else self._began
            self._batch, self._step = batch, (0, 0)
            self._write(batch.shard)

    def step(self, step: int, steps: int) -> None:
        """`step` of `steps` is done in the batch in hand."""
        with self._lock:
            self._step = (step, steps)
            if self._batch is not None and self.clock() - self._written >= LEAST_SECONDS:
                self._write(self._batch.shard)

    def spooled(self, batch: Batch, count: int) -> None:
        """`count` outputs of `batch` came into the spool, and it's finished."""
        with self._lock:
            shard = self.shards[batch.shard]
            shard.made += count
            shard.batches_left -= 1
            self._made_here += count
            self._write(batch.shard)

    def left_out(self, batch: Batch) -> None:
        """`batch` could not be made."""
        with self._lock:
            self.shards[batch.shard].failed = True
            self.shards[batch.shard].batches_left -= 1
            self._write(batch.shard)

    def _write(self, shard: int) -> None:
        count = self.shards[shard]
        in_hand = self._batch is not None and self._batch.shard == shard and count.batches_left > 0
        step, steps = self._step if in_hand else (0, 0)
        elapsed = 0.0 if self._began is None else self.clock() - self._began
        ShardProgress(
            shard=shard,
            total=count.total,
            generated=count.made,
            step=step,
            steps=steps,
            images_per_second=round(self._made_here / elapsed, 4) if elapsed > 0 else 0.0,
            state=self._state(count, in_hand=in_hand),
        ).write(self.spool)
        self._written = self.clock()

    def _state(self, count: ShardCount, *, in_hand: bool) -> State:
        if count.batches_left > 0:
            return "Running" if in_hand else "Waiting"
        return "Failed" if count.failed or count.made < count.total else "Done"
