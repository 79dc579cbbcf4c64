"""The spool: a bounded folder between who makes outputs and who stores them. It is the truth; Redis is a hint.

    payload/<id>       the bytes                        (written first, by rename)
    entry/<id>.json    what they are: the commit        (written second, by rename)
    ack/<id>.json      the store has them               (by the uploader; the payload is removed then)
    refused/<id>.json  they can't be stored, and why    (by the uploader)
    progress/          how far each shard is
    input/             what `fetch` left

A crash at any moment leaves an entry whole or not there. Ids are made here from the key, and are plain tokens.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from frazil_jobs.base.exits import TryAgain
from frazil_jobs.base.files import sha256_of, sync, write_atomically
from frazil_jobs.base.keys import check_key

DEFAULT_LIMIT_BYTES: Final = 8 << 30
FULL_SECONDS: Final = 3600.0
"""How long a full spool is waited for."""
_POLL_SECONDS: Final = 0.1
_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,119}")


class Entry(BaseModel):
    """One output: where it goes, and what the store must have in the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    key: str
    """Below the job's prefix."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    """Bytes."""
    content_type: str
    metadata: dict[str, str] = Field(default_factory=dict)


class Acknowledgement(BaseModel):
    """The store's word on an entry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    key: str
    sha256: str
    size: int


class Refusal(BaseModel):
    """Why an entry can't be stored, ever."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    reason: str


def id_of(key: str) -> str:
    """The id of the entry for `key`: readable, and different for different keys."""
    readable = re.sub(r"[^a-z0-9.]+", "-", key.lower()).strip("-.")[:80].strip("-.") or "entry"
    return f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def is_id(text: str) -> bool:
    """Whether `text` can be an entry's id: a plain token, which names nothing outside of its folder."""
    return _ID.fullmatch(text) is not None


class Spool:
    """A spool below `root`, made when it isn't there. `limit_bytes` bounds the payloads that wait."""

    def __init__(self, root: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        for name in ("payload", "entry", "ack", "refused", "progress", "input"):
            (root / name).mkdir(parents=True, exist_ok=True)

    # --- who makes outputs ---

    def add(
        self,
        key: str,
        data: bytes | Path,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
        timeout: float = FULL_SECONDS,
        stop: Callable[[], bool] | None = None,
    ) -> Entry:
        """Put one output into the spool. Waits while it's full.

        Raises ValueError for a key that could leave the prefix, TryAgain when the spool stays full for `timeout`
        seconds or `stop` says so.
        """
        check_key(key)
        content = data.read_bytes() if isinstance(data, Path) else data
        entry = Entry(
            id=id_of(key),
            key=key,
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            content_type=content_type,
            metadata=dict(metadata or {}),
        )
        self._wait_for_room(entry.size, timeout=timeout, stop=stop)
        self._forget(entry.id)
        write_atomically(self.root / "payload" / entry.id, content)
        write_atomically(self.root / "entry" / f"{entry.id}.json", entry.model_dump_json())
        return entry

    def take(
        self,
        key: str,
        path: Path,
        *,
        content_type: str,
        metadata: Mapping[str, str] | None = None,
    ) -> Entry:
        """Put a file of the spool's own volume into the spool by moving it there: for what may not fit into memory.

        It waits for nothing: the file takes its room already, so whoever writes it asks `has_room` before. Raises
        ValueError for a key that could leave the prefix.
        """
        check_key(key)
        entry = Entry(
            id=id_of(key),
            key=key,
            sha256=sha256_of(path),
            size=path.stat().st_size,
            content_type=content_type,
            metadata=dict(metadata or {}),
        )
        self._forget(entry.id)
        sync(path)
        path.replace(self.root / "payload" / entry.id)
        sync(self.root / "payload")
        write_atomically(self.root / "entry" / f"{entry.id}.json", entry.model_dump_json())
        return entry

    def _forget(self, entry_id: str) -> None:
        """Remove what an earlier start left: without its acknowledgement it would be pending, with no payload."""
        for folder in ("entry", "ack", "refused"):
            (self.root / folder / f"{entry_id}.json").unlink(missing_ok=True)

    def is_stored(self, entry: Entry) -> bool:
        """Whether the store has this very entry. Raises TryAgain when it was refused."""
        if (self.root / "ack" / f"{entry.id}.json").exists():
            return True
        refusals = [refusal for refusal in self.refused() if refusal.id == entry.id]
        if refusals:
            raise TryAgain(f"{entry.key} can't be stored: {refusals[0].reason}")
        return False

    def used_bytes(self) -> int:
        """Bytes of the payloads that wait."""
        total = 0
        for item in os.scandir(self.root / "payload"):
            try:
                total += item.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
        return total

    def has_room(self, size: int) -> bool:
        """Whether `size` bytes more may wait. An empty spool takes anything."""
        return not (used := self.used_bytes()) or used + size <= self.limit_bytes

    def _wait_for_room(self, size: int, *, timeout: float, stop: Callable[[], bool] | None) -> None:
        end = time.monotonic() + timeout
        while not self.has_room(size):
            if stop is not None and stop():
                raise TryAgain("stopped while the spool was full")
            if time.monotonic() > end:
                raise TryAgain(
                    f"the spool {self.root} stayed full ({self.used_bytes()} of {self.limit_bytes} bytes) for "
                    f"{timeout:.0f} s",
                    remedy="is the store reachable?",
                )
            time.sleep(_POLL_SECONDS)

    # --- both ---

    def entries(self) -> Iterator[Entry]:
        """All entries that make sense, by id, acknowledged or not."""
        for name in self._ids("entry"):
            entry = self.entry(name)
            if entry is not None:
                yield entry

    def entry(self, entry_id: str) -> Entry | None:
        """One entry; None when it isn't there or makes no sense."""
        try:
            found = Entry.model_validate_json((self.root / "entry" / f"{entry_id}.json").read_bytes())
        except (OSError, ValidationError):
            return None
        return found if found.id == entry_id else None

    def pending(self) -> list[str]:
        """Ids of entries that are neither acknowledged nor refused, oldest first."""
        done = {*self._ids("ack"), *self._ids("refused")}
        waiting = [name for name in self._ids("entry") if name not in done]
        return sorted(waiting, key=self._age)

    def acknowledged(self) -> list[Acknowledgement]:
        """What the store has."""
        found = []
        for name in self._ids("ack"):
            try:
                found.append(Acknowledgement.model_validate_json((self.root / "ack" / f"{name}.json").read_bytes()))
            except (OSError, ValidationError):
                continue
        return found

    def refused(self) -> list[Refusal]:
        """What can't be stored."""
        found = []
        for name in self._ids("refused"):
            try:
                found.append(Refusal.model_validate_json((self.root / "refused" / f"{name}.json").read_bytes()))
            except (OSError, ValidationError):
                continue
        return found

    def drained(self) -> bool:
        """Whether every entry is acknowledged or refused."""
        return not self.pending()

    def wait_drained(self, timeout: float, stop: Callable[[], bool] | None = None) -> bool:
        """Wait until everything is acknowledged or refused. False after `timeout` seconds, or when `stop` says so."""
        end = time.monotonic() + timeout
        while not self.drained():
            if time.monotonic() >= end or (stop is not None and stop()):
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _ids(self, folder: str) -> list[str]:
        names = [item.name for item in os.scandir(self.root / folder) if item.name.endswith(".json")]
        return sorted(name for name in (name.removesuffix(".json") for name in names) if is_id(name))

    def _age(self, entry_id: str) -> tuple[int, str]:
        try:
            return (self.root / "entry" / f"{entry_id}.json").lstat().st_mtime_ns, entry_id
        except FileNotFoundError:
            return 0, entry_id

    # --- who stores them ---

    def open_payload(self, entry_id: str) -> int:
        """A descriptor of an entry's bytes. Follows no link; raises OSError, or ValueError for what can't be an id."""
        if not is_id(entry_id):
            raise ValueError(f"{entry_id!r} is not an entry's id")
        folder = os.open(self.root / "payload", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            return os.open(entry_id, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Note that the store has an entry, then free its payload."""
        write_atomically(self.root / "ack" / f"{acknowledgement.id}.json", acknowledgement.model_dump_json())
        (self.root / "payload" / acknowledgement.id).unlink(missing_ok=True)

    def refuse(self, refusal: Refusal) -> None:
        """Note that an entry can't be stored, then free its payload."""
        write_atomically(self.root / "refused" / f"{refusal.id}.json", refusal.model_dump_json())
        (self.root / "payload" / refusal.id).unlink(missing_ok=True)
