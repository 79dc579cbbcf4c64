"""Files of this machine into a store: in parallel, and only those that aren't there with the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frazil_cli.parallel import each
from frazil_cli.patience import patiently
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.base.files import content_type_of, sha256_of
from frazil_jobs.base.keys import check_key
from frazil_jobs.stores import ObjectStore

_RESULTS: Final = re.compile(r".+-[0-9a-f]{8}")
"""The first part of what jobs store: <job>-<uid8>."""


@dataclass(frozen=True)
class Pushed:
    """One file that is in the store."""

    key: str
    size: int
    pushed: bool
    """False when it was there already."""


def target(asked: str | None, default: str) -> str:
    """Where it goes below a namespace. Raises BadConfiguration for what is no name, or could be a job's results."""
    name = (asked or default).strip("/")
    try:
        check_key(name)
    except ValueError as error:
        raise BadConfiguration(str(error), field="AS", remedy="name it like models/shapes") from None
    if _RESULTS.fullmatch(name.partition("/")[0]):
        raise BadConfiguration(
            f"{name!r} looks like the results of a job, which begin with <job>-<8 digits>/",
            field="AS",
            remedy="name it like models/shapes",
        )
    return name


def files_of(path: Path) -> Mapping[str, Path]:
    """The files of a folder, or the one file: what to add to its name, and where it is. Raises BadInput."""
    if path.is_file():
        return {"": path}
    found = {
        part.relative_to(path).as_posix(): part
        for part in sorted(path.rglob("*"))
        if part.is_file() and not any(name.startswith(".") for name in part.relative_to(path).parts)
    }
    if not found:
        raise BadInput(f"{path} holds no file", remedy="name a folder with a pipeline, or a file")
    return found


def push_all(store: ObjectStore, prefix: str, files: Mapping[str, Path], *, threads: int) -> Iterator[Pushed]:
    """Put all files below `prefix`, as they get there. Raises the first error, once the files in hand are ended."""
    named = ((f"{prefix}/{name}" if name else prefix, path) for name, path in files.items())
    return each(lambda one: _push_one(store, *one), named, threads=threads)


def _push_one(store: ObjectStore, key: str, path: Path) -> Pushed:
    """Put one file, unless it's there; again while the store is away for a short time."""
    sha256, size = sha256_of(path), path.stat().st_size

    def put() -> Pushed:
        there = store.stat(key)
        if there is not None and (there.sha256, there.size) == (sha256, size):
            return Pushed(key, size, pushed=False)
        store.put_file(key, path, sha256=sha256, content_type=content_type_of(path))
        return Pushed(key, size, pushed=True)

    return patiently(put, stays="what is there")
