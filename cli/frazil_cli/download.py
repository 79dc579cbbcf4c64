"""Verified copies of results: in parallel, into files that are there whole or not at all, gone on with where it stopped."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from frazil_cli.parallel import each
from frazil_cli.patience import patiently
from frazil_jobs.base.exits import BadInput
from frazil_jobs.base.files import sha256_of, sync
from frazil_jobs.base.keys import check_key
from frazil_jobs.stores import ObjectStore

PART_SUFFIX = ".frazil-part"
"""Of the folder beside a file in which it's downloaded: whatever a store leaves there when it's killed goes with it."""


@dataclass(frozen=True)
class Wanted:
    """One file. `sha256` None: whatever the store says of it."""

    key: str
    """Below the job's prefix."""
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Done:
    """One file that is here."""

    key: str
    size: int
    fetched: bool
    """False when it was here already."""


def target_of(folder: Path, key: str) -> Path:
    """Where the file of `key` goes. Raises BadInput for a key that would leave `folder`, or hide in it."""
    try:
        parts = check_key(key).split("/")
    except ValueError as error:
        raise BadInput(f"the manifest names a file that can't be: {error}", remedy="was it changed?") from None
    if any(part.startswith(".") for part in parts):
        raise BadInput(f"the manifest names a hidden file: {key!r}", remedy="was it changed?")
    target = folder.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{target} is outside of {folder}, by a link", remedy="remove the link, or choose another --to")
    return target


def matching(wanted: Iterable[Wanted], pattern: str | None) -> Iterator[Wanted]:
    """Those whose key, or its last part, fits a pattern such as `*.png` or `images/000012-*`."""
    for one in wanted:
        name = one.key.rpartition("/")[2]
        if pattern is None or fnmatch.fnmatchcase(one.key, pattern) or fnmatch.fnmatchcase(name, pattern):
            yield one


def fetch_all(
    store: ObjectStore,
    prefix: str,
    wanted: Iterable[Wanted],
    folder: Path,
    *,
    threads: int,
    on_done: Callable[[Done], None],
) -> None:
    """Bring all `wanted` below `folder`. Raises the first error, once the files in hand are ended."""
    for done in each(lambda one: fetch_one(store, prefix, one, folder), wanted, threads=threads):
        on_done(done)


def fetch_one(store: ObjectStore, prefix: str, wanted: Wanted, folder: Path) -> Done:
    """Bring one file, unless it's here and right."""
    target = target_of(folder, wanted.key)
    name = f"{prefix}/{wanted.key}"
    parts = target.with_name(f".{target.name}{PART_SUFFIX}")
    shutil.rmtree(parts, ignore_errors=True)  # of a fetch that was killed
    if _is_right(store, name, target, wanted):
        return Done(wanted.key, target.stat().st_size, fetched=False)
    parts.mkdir(parents=True)
    part = parts / target.name
    try:
        for attempt in range(2):
            noted = _downloaded(store, name, part)
            expected = wanted.sha256 or noted
            if expected is None or sha256_of(part) == expected:
                break
            if attempt:
                raise BadInput(
                    f"the store's {wanted.key} is not what was made: its sha256 is {sha256_of(part)}, not {expected}",
                    remedy="run the job again to have it made again, after deleting the object",
                )
        sync(part)
        part.replace(target)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    return Done(wanted.key, target.stat().st_size, fetched=True)


def _downloaded(store: ObjectStore, key: str, part: Path) -> str | None:
    """Download, again while the store is away for a short time. Returns the sha256 that the store notes."""

    def get() -> str | None:
        try:
            return store.get_file(key, part).sha256
        except FileNotFoundError:
            raise BadInput(
                f"{key} is named by the manifest, and is gone from the store", remedy="run the job again"
            ) from None

    return patiently(get, stays="what is here")


def _is_right(store: ObjectStore, name: str, target: Path, wanted: Wanted) -> bool:
    """Whether the file is here and is what is wanted. The store is asked only where nobody noted a sha256."""
    if target.is_symlink() or not target.is_file():
        return False
    size, sha256 = wanted.size, wanted.sha256
    if sha256 is None:
        info = store.stat(name)
        if info is None or info.sha256 is None:
            return False
        size, sha256 = info.size, info.sha256
    return (size is None or target.stat().st_size == size) and sha256_of(target) == sha256
