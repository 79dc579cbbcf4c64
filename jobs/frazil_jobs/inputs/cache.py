"""A cache of model folders that several processes and pods share: locked, verified, and used only when complete.

    <cache>/<key>/.lock       held while files are fetched; the system lets go of it when its holder dies
    <cache>/<key>/partial/    what is being fetched; kept, so that a fetch that was cut off goes on
    <cache>/<key>/files/      whole files, each moved here once its size and sha256 were seen to be right
    <cache>/<key>/.complete   names, sizes and sha256 of all files; written last

A key names content, not a place: what changes at the source gets another key, and nobody's files change under them.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from frazil_jobs.base.exits import BadConfiguration, TryAgain
from frazil_jobs.base.files import sha256_of, sync, write_atomically
from frazil_jobs.base.log import get_logger
from frazil_jobs.inputs.locations import clean_path
from frazil_jobs.inputs.progress import Report, bytes_below, watched

PARALLEL_DOWNLOADS = 4
LOCK_SECONDS = 3600.0
"""The longest that one fetch waits for another that downloads the same model."""
REHASHED_BYTES = 1 << 20
"""Files up to this size are hashed again at every use; of larger ones only the size is compared."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}


@dataclass(frozen=True)
class RemoteFile:
    """A file at its source. `name` is relative to the folder that is made."""

    name: str
    size: int
    sha256: str | None = None
    """As the source states it; None where it does not."""


Download = Callable[[RemoteFile, Path], Path]
"""Fetch a file somewhere below the given folder, going on with what is left there, and say where it is."""


@dataclass(frozen=True)
class Source:
    """A folder of files that lies elsewhere, as it is at this moment."""

    label: str
    """The URI, for people."""
    identity: str
    """Tells one content from another: a commit, or a digest over names, sizes and tags."""
    files: tuple[RemoteFile, ...]
    download: Download

    def named(self, name: str) -> RemoteFile | None:
        """The file of that name."""
        return next((file for file in self.files if file.name == name), None)

    def only(self, names: Sequence[str]) -> Source:
        """The same with no other files than `names`."""
        return replace(self, files=tuple(file for file in self.files if file.name in set(names)))


class CachedFile(BaseModel):
    """One line of `.complete`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int
    sha256: str


class Complete(BaseModel):
    """`.complete`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    files: list[CachedFile]


def key_of(*parts: str) -> str:
    """A file name from what identifies the content: readable, and unlike for unlike parts that read alike."""
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", "--".join(part for part in parts if part)).strip("-.")[:120]
    return f"{readable}--{digest}"


def find(cache: Path, key: str) -> Path | None:
    """The folder of `key` if it is complete and passes verification. Takes no lock and writes nothing."""
    home = cache / key
    complete = _read_complete(home)
    if complete is None or any(not _is_right(home / "files", file) for file in complete.files):
        return None
    return home / "files"


def ensure(cache: Path, key: str, source: Source, *, report: Report, lock_seconds: float = LOCK_SECONDS) -> Path:
    """The folder of `key`, fetched if it is not there whole. Of several processes that ask at once, one fetches.

    Raises TryAgain when another fetch holds the lock for longer than `lock_seconds` or what arrives is not what the
    source announced, BadConfiguration when the cache is full or can't be written.
    """
    if folder := find(cache, key):
        return folder
    for file in source.files:
        if clean_path(file.name) != file.name or file.name.startswith("."):
            raise BadConfiguration(
                f"{source.label} holds a file called {file.name!r}", remedy="such a name isn't written"
            )
    home = cache / key
    with _disk_errors(cache):
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home, label=source.label, seconds=lock_seconds):
            if folder := find(cache, key):
                return folder
            _fill(home, source, report)
    return home / "files"


def _fill(home: Path, source: Source, report: Report) -> None:
    target, partial = home / "files", home / "partial"
    if old := _read_complete(home):
        (home / ".complete").unlink()
        _drop_damaged(target, old)
    partial.mkdir(exist_ok=True)
    target.mkdir(exist_ok=True)
    for remains in partial.rglob("*.incomplete"):  # huggingface_hub gives each attempt a name of its own
        remains.unlink()
    total = sum(file.size for file in source.files)
    _check_space(home, total - bytes_below(home))
    log = get_logger()
    log.info("fetching", what=source.label, bytes=total, files=len(source.files))
    with watched(report, source.label, total, lambda: bytes_below(home)):
        done = _in_parallel(
            source.files, lambda file: _one(file, target=target, partial=partial, download=source.download)
        )
    write_atomically(home / ".complete", Complete(source=source.label, files=done).model_dump_json())
    shutil.rmtree(partial, ignore_errors=True)
    log.info("fetched", what=source.label, bytes=total, folder=str(target))


def _one(file: RemoteFile, *, target: Path, partial: Path, download: Download) -> CachedFile:
    final = target / file.name
    if final.is_file() and final.stat().st_size == file.size:  # moved here by a fetch that was cut off later
        digest = sha256_of(final)
        if file.sha256 in (None, digest):
            return CachedFile(name=file.name, size=file.size, sha256=digest)
    arrived = download(file, partial)
    size, digest = arrived.stat().st_size, sha256_of(arrived)
    if size != file.size or file.sha256 not in (None, digest):
        arrived.unlink()
        announced = f"{file.size:,} bytes" + (f" and sha256 {file.sha256}" if file.sha256 else "")
        raise TryAgain(f"{file.name} arrived with {size:,} bytes and sha256 {digest}; announced were {announced}")
    final.parent.mkdir(parents=True, exist_ok=True)
    sync(arrived)
    arrived.replace(final)
    sync(final.parent)
    return CachedFile(name=file.name, size=size, sha256=digest)


def _in_parallel(files: Sequence[RemoteFile], one: Callable[[RemoteFile], CachedFile]) -> list[CachedFile]:
    """`one` of each file, the largest first. After an error no further file is begun; those in hand are finished."""
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS, thread_name_prefix="fetch") as pool:
        futures = [pool.submit(one, file) for file in sorted(files, key=lambda file: -file.size)]
        finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in finished:
            if future.exception() is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                future.result()
        return sorted((future.result() for future in futures), key=lambda file: file.name)


def _is_right(folder: Path, file: CachedFile) -> bool:
    path = folder / file.name
    try:
        return path.stat().st_size == file.size and (file.size > REHASHED_BYTES or sha256_of(path) == file.sha256)
    except OSError:
        return False


def _drop_damaged(folder: Path, old: Complete) -> None:
    for file in old.files:
        path = folder / file.name
        if path.is_file() and not (path.stat().st_size == file.size and sha256_of(path) == file.sha256):
            get_logger().warning("a cached file was damaged and is fetched again", what=old.source, file=str(path))
            path.unlink()


def _read_complete(home: Path) -> Complete | None:
    try:
        return Complete.model_validate_json((home / ".complete").read_bytes())
    except (OSError, ValidationError):
        return None


def _check_space(home: Path, missing: int) -> None:
    free = shutil.disk_usage(home).free
    if missing > free:
        raise BadConfiguration(
            f"the model cache {home.parent} has {free:,} bytes free and {missing:,} are to come",
            field="spec.model.cache",
            remedy="give it more room, or another folder with FRAZIL_MODEL_CACHE",
        )


@contextmanager
def _locked(home: Path, *, label: str, seconds: float) -> Iterator[None]:
    lock = FileLock(home / ".lock", timeout=seconds)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        get_logger().info("waiting for another process that fetches the same", what=label, lock=str(home / ".lock"))
        try:
            lock.acquire()
        except Timeout:
            raise TryAgain(
                f"another process has been fetching {label} into {home} for {seconds:.0f} s",
                remedy="wait for it, or end it",
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL | _DENIED:
            raise
        what = "is full" if error.errno in _FULL else "can't be written"
        raise BadConfiguration(
            f"the model cache {cache} {what}: {error}",
            field="spec.model.cache",
            remedy="give it room and write permission, or another folder with FRAZIL_MODEL_CACHE",
        ) from error
