"""Models that lie in an S3 bucket: listed and downloaded through the object stores that results go to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs.access import Access, named
from frazil_jobs.inputs.cache import RemoteFile, Source
from frazil_jobs.inputs.locations import Bucket, clean_path
from frazil_jobs.stores import ObjectInfo, StoreUnreachable

ATTEMPTS = 4
"""Of one file; each goes on where the last one ended."""
MAX_FILES = 10_000
"""Objects below one prefix: a model has a few dozen."""


def bucket_source(where: Bucket, *, access: Access, field: str) -> Source:
    """All objects below the prefix `where`, or the one object of that key as a folder of one file.

    Objects whose key could not be a file below the folder are refused: a key is whatever its writer chose.
    """
    store = access.open_bucket(where.bucket, field=field)
    prefix = f"{where.key}/"
    with named(field, where):
        found = _listed(store.list(prefix), prefix=prefix, where=where, field=field)
        if not found and (info := store.stat(where.key)):
            prefix = where.key.rpartition("/")[0] + "/" if "/" in where.key else ""
            found = {where.key.removeprefix(prefix): info}
        stated = {name: store.stat(info.key) or info for name, info in found.items()}
    if not found:
        raise BadConfiguration(f"there is nothing at {where}", field=field, remedy="check bucket and key")
    digest = hashlib.sha256()
    for name, info in sorted(stated.items()):
        digest.update(f"{name}\0{info.size}\0{info.sha256}\0{info.etag}\n".encode())

    def download(file: RemoteFile, folder: Path) -> Path:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        attempts = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=0.5, max=10.0),
            retry=retry_if_exception_type(StoreUnreachable),
            reraise=True,
        )
        with named(field, f"s3://{where.bucket}/{prefix}{file.name}"):
            attempts(store.get_file, f"{prefix}{file.name}", path)
        return path

    return Source(
        label=str(where),
        identity=digest.hexdigest(),
        files=tuple(RemoteFile(name=name, size=info.size, sha256=info.sha256) for name, info in sorted(stated.items())),
        download=download,
    )


def _listed(infos: Iterable[ObjectInfo], *, prefix: str, where: Bucket, field: str) -> dict[str, ObjectInfo]:
    """Objects by their name below `prefix`, hidden ones and folder markers left out. Raises BadConfiguration."""
    found: dict[str, ObjectInfo] = {}
    for info in infos:
        name = info.key.removeprefix(prefix)
        if not name or name.endswith("/") or any(part.startswith(".") and part != ".." for part in name.split("/")):
            continue
        if clean_path(name) != name:
            raise BadConfiguration(
                f"{where} holds an object called {name!r}, which can't be a file below a folder",
                field=field,
                remedy="delete it, or copy the model to a prefix of its own",
            )
        found[name] = info
        if len(found) > MAX_FILES:
            raise BadConfiguration(
                f"{where} holds more than {MAX_FILES:,} objects", field=field, remedy="name the model's own prefix"
            )
    for name in found:
        if clash := next((str(parent) for parent in PurePosixPath(name).parents if str(parent) in found), None):
            raise BadConfiguration(f"{where} holds {clash!r} both as an object and as a folder", field=field)
    return found
