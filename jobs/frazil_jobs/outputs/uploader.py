"""Stores the entries of one spool: what one task does. Idempotent, so it doesn't matter how often it's asked.

Bucket, prefix and credentials are this process's own configuration; a task brings nothing but an entry's id.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from frazil_jobs.api.checkpoints import FOLDER, KEEP, MARKER, of_key, outdated
from frazil_jobs.base.keys import check_key
from frazil_jobs.base.log import get_logger
from frazil_jobs.outputs.spool import Acknowledgement, Entry, Refusal, Spool, is_id
from frazil_jobs.stores import ObjectInfo, ObjectStore, StoreDenied, StoreUnreachable

_CHUNK: Final = 1 << 20
log = get_logger(__name__)


@dataclass
class Uploader:
    """One spool, one store, the prefix of one job."""

    spool: Spool
    store: ObjectStore
    prefix: str
    _busy: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def busy(self, entry_id: str) -> bool:
        """Whether the entry is being uploaded just now."""
        return entry_id in self._busy

    def upload(self, entry_id: str) -> None:
        """Store an entry and acknowledge it, or refuse it for good.

        Nothing happens for one that's done, gone, or in another thread's hands. Raises StoreUnreachable, StoreDenied.
        """
        if not is_id(entry_id):
            log.error("not an entry's id", entry=repr(entry_id)[:80])
            return
        with self._lock:
            if entry_id in self._busy or entry_id not in self.spool.pending():
                return
            self._busy.add(entry_id)
        try:
            entry = self.spool.entry(entry_id)
            if entry is None:
                self._refuse(entry_id, "its sidecar makes no sense")
            else:
                self._store(entry)
        finally:
            self._busy.discard(entry_id)

    def _store(self, entry: Entry) -> None:
        try:
            check_key(entry.key)
            descriptor = self.spool.open_payload(entry.id)
        except ValueError as error:
            self._refuse(entry.id, str(error))
            return
        except OSError as error:
            self._refuse(entry.id, f"its payload can't be read: {error.strerror}")
            return
        try:
            if problem := _difference(descriptor, entry):
                self._refuse(entry.id, problem)
                return
            info = self.store.put_file(
                f"{self.prefix}/{entry.key}",
                Path(f"/proc/self/fd/{descriptor}"),
                sha256=entry.sha256,
                content_type=entry.content_type,
                metadata=entry.metadata,
            )
        finally:
            os.close(descriptor)
        if not _holds(info, entry):
            log.error("the store holds something else", key=entry.key, size=info.size, sha256=info.sha256)
            return  # it's still pending, and comes again
        self.spool.acknowledge(Acknowledgement(id=entry.id, key=entry.key, sha256=entry.sha256, size=entry.size))
        log.info("stored", key=entry.key, size=entry.size)
        self._prune(entry)

    def _prune(self, entry: Entry) -> None:
        """Once a checkpoint is committed, remove those that are older than the job keeps.

        What can't be removed now is removed after the next one. Nothing outside of the job's own checkpoints is touched.
        """
        found, keep = of_key(entry.key), entry.metadata.get(KEEP, "")
        if found is None or found[1] != MARKER or not keep.isdecimal() or int(keep) < 1:
            return
        base = f"{self.prefix}/"
        try:
            listed = [info.key.removeprefix(base) for info in self.store.list(f"{base}{FOLDER}/")]
            old = outdated(listed, int(keep))
            self.store.delete([base + key for key in old if key.endswith(f"/{MARKER}")])
            self.store.delete([base + key for key in old])
        except (StoreUnreachable, StoreDenied) as error:
            log.warning("old checkpoints stay for now", error=str(error))
            return
        if old:
            log.info("removed old checkpoints", keys=len(old))

    def _refuse(self, entry_id: str, reason: str) -> None:
        log.error("refused", entry=entry_id, reason=reason)
        self.spool.refuse(Refusal(id=entry_id, reason=reason))


def _holds(info: ObjectInfo, entry: Entry) -> bool:
    return info.size == entry.size and info.sha256 == entry.sha256


def _difference(descriptor: int, entry: Entry) -> str | None:
    """What is wrong with a payload, or None. Leaves the descriptor at its start."""
    digest = hashlib.sha256()
    size = 0
    while chunk := os.read(descriptor, _CHUNK):
        digest.update(chunk)
        size += len(chunk)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if size != entry.size:
        return f"its payload has {size} bytes where the sidecar says {entry.size}"
    return None if digest.hexdigest() == entry.sha256 else "its payload's sha256 is not what the sidecar says"
