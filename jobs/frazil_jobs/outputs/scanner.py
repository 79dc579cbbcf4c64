"""Finds what waits in a spool and asks for its upload, again and again, until it's acknowledged.

It looks at the start, when the entry folder changes, and every few seconds. At most a window of entries is asked for at a
time, each again after a pause: so an emptied Redis, a killed worker or a store that was down costs a rescan and no more.
`due` decides; `Scanner` is the thread around it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from kombu.exceptions import OperationalError
from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from frazil_jobs.base.files import write_atomically
from frazil_jobs.base.log import get_logger
from frazil_jobs.outputs.progress import (
    ShardProgress,
    TrainingProgress,
    spooled_progress,
    spooled_training,
)
from frazil_jobs.outputs.spool import Spool

STATUS_FILE: Final = "upload.json"
WINDOW: Final = 64
AGAIN_SECONDS: Final = 3.0
"""After a request that led to nothing, doubled each time up to LONGEST_PAUSE_SECONDS."""
LONGEST_PAUSE_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.2
RESCAN_SECONDS: Final = 2.0

log = get_logger(__name__)
State = Literal["Ready", "BrokerUnreachable", "StoreUnreachable", "StoreDenied"]


class UploadStatus(BaseModel):
    """How the uploader is, for whoever watches the spool."""

    model_config = ConfigDict(frozen=True)

    state: State
    message: str
    pending: int
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Request:
    """When an entry's upload was last asked for, and how often."""

    at: float
    times: int

    @property
    def pause(self) -> float:
        """Seconds before it's asked for again."""
        return min(LONGEST_PAUSE_SECONDS, AGAIN_SECONDS * 2.0 ** (self.times - 1))


def due(
    pending: Sequence[str], requests: Mapping[str, Request], *, now: float, busy: Callable[[str], bool]
) -> list[str]:
    """The entries to ask for now: of the oldest `WINDOW`, those never asked for, or not for a while and not in work."""
    return [
        entry
        for entry in pending[:WINDOW]
        if not busy(entry) and ((last := requests.get(entry)) is None or now - last.at >= last.pause)
    ]


@dataclass
class Scanner:
    """A thread that keeps asking."""

    spool: Spool
    ask: Callable[[str], None]
    """Enqueue one task. Raises kombu's OperationalError or redis' RedisError."""
    relay: Callable[[Sequence[ShardProgress | TrainingProgress]], None]
    """Pass progress on. Raises redis' RedisError."""
    busy: Callable[[str], bool]
    requests: dict[str, Request] = field(default_factory=dict)
    store_trouble: tuple[State, str] | None = None
    """Set by who uploads, cleared when an upload succeeds."""
    _wake: threading.Event = field(default_factory=threading.Event)
    _stopped: bool = False
    _relayed: dict[int, ShardProgress | TrainingProgress] = field(default_factory=dict)
    _last_status: tuple[str, str, int] | None = None
    _seen_mtime: int = -1
    _pending: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Scan until stopped."""
        scanned = 0.0
        while not self._stopped:
            now = time.monotonic()
            changed = self._mtime()
            if changed != self._seen_mtime or now - scanned >= RESCAN_SECONDS:
                self._seen_mtime, scanned = changed, now
                self._pending = self.spool.pending()
                broker = self._ask_all(now) or self._relay_all()
                self._report(broker)
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    def stop(self) -> None:
        """End soon."""
        self._stopped = True
        self._wake.set()

    def _mtime(self) -> int:
        """Changes with every entry and every acknowledgement."""
        return sum((self.spool.root / name).stat().st_mtime_ns for name in ("entry", "ack", "progress"))

    def _ask_all(self, now: float) -> str | None:
        """Ask for what is due. Returns what is wrong with the broker, if anything."""
        known = set(self._pending)
        for gone in self.requests.keys() - known:
            del self.requests[gone]
        for entry in due(self._pending, self.requests, now=now, busy=self.busy):
            try:
                self.ask(entry)
            except (OperationalError, RedisError, OSError) as error:
                return f"{type(error).__name__}: {error}"[:300]
            last = self.requests.get(entry)
            self.requests[entry] = Request(at=now, times=1 if last is None else last.times + 1)
        return None

    def _relay_all(self) -> str | None:
        waiting = self._waiting_by_shard()
        current: list[ShardProgress | TrainingProgress] = [
            one.model_copy(update={"stored": max(0, one.generated - waiting.get(one.shard, 0))})
            for one in spooled_progress(self.spool.root)
        ]
        current += spooled_training(self.spool.root)
        changed = [one for one in current if self._relayed.get(one.shard) != one]
        try:
            self.relay(changed)
        except (RedisError, OSError) as error:
            self._relayed.clear()
            return f"{type(error).__name__}: {error}"[:300]
        self._relayed.update({one.shard: one for one in changed})
        return None

    def _waiting_by_shard(self) -> dict[int, int]:
        """Outputs of each shard (not thumbnails) that are in the spool and not yet stored."""
        counts: dict[int, int] = {}
        for entry_id in self._pending:
            entry = self.spool.entry(entry_id)
            if entry is not None and (shard := entry.metadata.get("shard", "")).isdigit():
                counts[int(shard)] = counts.get(int(shard), 0) + 1
        return counts

    def _report(self, broker: str | None) -> None:
        state: State = "Ready"
        message = ""
        if broker is not None:
            state, message = "BrokerUnreachable", broker
        elif self.store_trouble is not None:
            state, message = self.store_trouble
        summary = (state, message, len(self._pending))
        if summary == self._last_status:
            return
        if self._last_status is None or self._last_status[0] != state:
            log.log(20 if state == "Ready" else 40, "upload", state=state, reason=message, pending=len(self._pending))
        self._last_status = summary
        status = UploadStatus(state=state, message=message, pending=len(self._pending), at=time.time())
        write_atomically(self.spool.root / STATUS_FILE, status.model_dump_json())


def read_status(spool: Any) -> UploadStatus | None:
    """What the uploader of a spool (its folder) last said."""
    try:
        return UploadStatus.model_validate_json((spool / STATUS_FILE).read_bytes())
    except (OSError, ValueError):
        return None
