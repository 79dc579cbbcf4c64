"""How far a run is: from Redis, where the upload workers put it, or from the spools themselves while Redis is down.

Reads only. Every source may be missing at any moment, and the counts never go back.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from frazil_cli.display import ShardView, View, duration
from frazil_cli.prepare import Prepared
from frazil_cli.workspace import Workspace
from frazil_jobs.inputs.progress import FetchProgress
from frazil_jobs.inputs.task import Task
from frazil_jobs.outputs.progress import ShardProgress, spooled_progress
from frazil_jobs.outputs.relay import read_progress
from frazil_jobs.outputs.scanner import UploadStatus, read_status

LOOK_SECONDS = 0.5
"""Between two looks at Redis and the spools."""
_MEGABYTE = 1 << 20
_FETCHING = {
    "prompts": "reading prompts",
    "dataset": "checking the data set",
    "model": "checking the model",
    "stored": "asking the store what it holds",
    "done": "asking the store what it holds",
    "failed": "stopping",
}


@dataclass
class Watch:
    """What is known of a run so far."""

    prepared: Prepared
    space: Workspace
    redis_url: str = ""
    begun: bool = False
    """Whether it's known what is stored already."""
    before: int = 0
    """Images that the store held when this run began to make its own."""
    began_at: float = 0.0
    """When that was, in seconds since 1970: older progress is an earlier run's."""
    first_step: float | None = None
    """When (monotonic) the ranks were first seen at work, with their model loaded."""
    shards: dict[int, ShardProgress] = field(default_factory=dict)
    uploads: dict[int, UploadStatus] = field(default_factory=dict)
    redis_down: bool = False
    trouble_since: float | None = None
    """Since when (monotonic) the store is not to be reached, or nothing that waits gets stored."""
    _looked: float = float("-inf")
    _waiting: int = 0

    @property
    def generated(self) -> int:
        """Images made, those of earlier runs included."""
        return max(self.before, sum(shard.generated for shard in self.shards.values()))

    @property
    def stored(self) -> int:
        """Images that the store holds."""
        return max(self.before, sum(shard.stored for shard in self.shards.values()))

    def look(self, replicas: Iterable[int], now: float, *, at_once: bool = False) -> None:
        """Read what there is, not too often."""
        if now - self._looked < LOOK_SECONDS and not at_once:
            return
        self._looked = now
        listed = list(replicas)
        for progress in self._progress(listed):
            self._note(progress)
            if self.first_step is None and self._at_work(progress):
                self.first_step = now
        for replica in listed:
            if (status := read_status(self.space.spool(replica))) is not None:
                self.uploads[replica] = status
        self._watch_store(now)

    def _progress(self, replicas: Iterable[int]) -> list[ShardProgress]:
        """From the spools (what is made, and the step in hand) and from Redis (what is stored)."""
        found = [one for replica in replicas for one in spooled_progress(self.space.spool(replica))]
        if not self.redis_url:
            return found
        try:
            relayed = read_progress(self.redis_url, self.prepared.job.metadata.namespace, self.prepared.uid)
            self.redis_down = False
        except (ConnectionError, OSError):
            relayed = []
            self.redis_down = True
        return [*found, *relayed]

    def _note(self, progress: ShardProgress) -> None:
        known = self.shards.get(progress.shard)
        if known is None:
            self.shards[progress.shard] = progress
            return
        newer = progress if progress.updated_at >= known.updated_at else known
        self.shards[progress.shard] = newer.model_copy(
            update={
                "generated": max(known.generated, progress.generated),
                "stored": max(known.stored, progress.stored),
            }
        )

    def _at_work(self, progress: ShardProgress) -> bool:
        return self.begun and progress.updated_at >= self.began_at and progress.state == "Running" and progress.step > 0

    def _watch_store(self, now: float) -> None:
        waiting = sum(status.pending for status in self.uploads.values())
        troubled = any(status.state in ("StoreUnreachable", "StoreDenied") for status in self.uploads.values())
        if not troubled or waiting < self._waiting:
            self.trouble_since = now if troubled else None
        elif self.trouble_since is None:
            self.trouble_since = now
        self._waiting = waiting

    def trouble_seconds(self, now: float) -> float:
        """How long nothing has reached the store although something waits."""
        return now - self.trouble_since if self.trouble_since is not None else 0.0

    def all_stored(self) -> None:
        """The ranks ended with 0, which means that the store has acknowledged all that they made."""
        for index, shard in self.shards.items():
            self.shards[index] = shard.model_copy(update={"stored": shard.generated, "state": "Done"})

    def notices(self, now: float) -> tuple[str, ...]:
        """What is wrong now."""
        found = []
        if self.trouble_since is not None:
            message = next(status.message for status in self.uploads.values() if status.state != "Ready")
            found.append(
                f"{message}; {self._waiting} files wait in the spool, for {duration(now - self.trouble_since)} now"
            )
        elif self.redis_down:
            found.append("Redis doesn't answer; the run goes on and catches up")
        return tuple(found)

    def view(self, phase: str, replicas: Iterable[int], now: float) -> View:
        """All there is to show."""
        self.look(replicas, now)
        running = [shard for shard in self.shards.values() if shard.state == "Running"]
        return View(
            phase=phase,
            total=self.prepared.images if self.begun else 0,
            generated=self.generated,
            stored=self.stored,
            images_per_second=self._pace() or None,
            shards=tuple(self._shard(shard) for shard in sorted(running, key=lambda shard: shard.shard)),
            notices=self.notices(now),
        )

    def _pace(self) -> float:
        """Images a second: of each replica what its leader said last, together."""
        latest: dict[int, ShardProgress] = {}
        for shard in self.shards.values():
            replica = shard.shard % self.prepared.layout.replicas
            if replica not in latest or shard.updated_at > latest[replica].updated_at:
                latest[replica] = shard
        return sum(shard.images_per_second for shard in latest.values())

    def _shard(self, shard: ShardProgress) -> ShardView:
        return ShardView(
            index=shard.shard,
            replica=shard.shard % self.prepared.layout.replicas,
            total=shard.total,
            generated=shard.generated,
            stored=shard.stored,
            step=shard.step,
            steps=shard.steps,
            images_per_second=shard.images_per_second,
            state=shard.state,
        )

    def begin(self, tasks: Iterable[Task]) -> None:
        """Note what was stored before this run makes anything."""
        self.begun, self.began_at = True, time.time()
        self.before = sum(stored_images(task) for task in tasks)


def stored_images(task: Task) -> int:
    """Outputs of a task, thumbnails left out, that the store already holds."""
    return sum(1 for key in task.stored if not key.startswith("thumbnails/"))


def wanted_images(task: Task) -> int:
    """Outputs that a task is for."""
    return sum(len(shard.rows) for shard in task.shards) * task.job.spec.images_per_prompt


def fetching(spools: Iterable[Path]) -> str:
    """What fetch is doing, in words."""
    for spool in spools:
        with contextlib.suppress(OSError):
            progress = FetchProgress.read(spool)
            if progress is None:
                continue
            if progress.state in ("dataset", "model") and progress.total:
                done, total = progress.done / _MEGABYTE, progress.total / _MEGABYTE
                return f"fetching {progress.what}: {done:,.0f} of {total:,.0f} MiB"
            return _FETCHING.get(progress.state, f"fetching {progress.what}")
    return _FETCHING["prompts"]
