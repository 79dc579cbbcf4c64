"""A folder as an object store. Metadata lie beside the objects, in a hidden folder of the same tree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from frazil_jobs.base.files import sha256_of, sync, write_atomically
from frazil_jobs.base.keys import check_key
from frazil_jobs.stores.base import SHA256, ObjectInfo, StoreDenied, StoreUnreachable

_META: Final = ".frazil"
P = ParamSpec("P")
R = TypeVar("R")


def _told(method: Callable[P, R]) -> Callable[P, R]:
    """Errors of the file system as errors of a store."""

    @wraps(method)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        store = args[0]
        assert isinstance(store, FolderStore)
        try:
            return method(*args, **kwargs)
        except FileNotFoundError:
            raise
        except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            raise StoreDenied(
                f"can't use the store {store.root}: {error.strerror}",
                field="--store",
                remedy="name a folder that this user may write to",
            ) from None
        except OSError as error:
            raise StoreUnreachable(f"the store {store.root} fails: {error.strerror}", field="--store") from None

    return inner


class FolderStore:
    """Objects are files below `root`; an object is there once it's renamed into place."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.root)

    @_told
    def put_file(
        self, key: str, path: Path, *, sha256: str, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Copy a file into the store."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with path.open("rb") as source, temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            self._note(key, {**(metadata or {}), SHA256: sha256}, content_type)
            temporary.replace(target)
            sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return self._info(key)

    @_told
    def put_bytes(
        self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Write bytes into the store."""
        target = self._path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._note(key, {**(metadata or {}), SHA256: hashlib.sha256(data).hexdigest()}, content_type)
        write_atomically(target, data)
        return self._info(key)

    @_told
    def get_file(self, key: str, path: Path) -> ObjectInfo:
        """Copy an object out of the store."""
        info = self._info(key)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            shutil.copyfile(self._path(key), temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return info

    @_told
    def get_bytes(self, key: str, *, limit: int | None = None) -> bytes:
        """Read an object."""
        path = self._path(key)
        if limit is not None and path.stat().st_size > limit:
            raise ValueError(f"{key} has {path.stat().st_size} bytes, more than {limit}")
        return path.read_bytes()

    @_told
    def stat(self, key: str) -> ObjectInfo | None:
        """What is known of an object."""
        return self._info(key) if self._path(key).is_file() else None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects by key. Walks only the folders that can hold the prefix."""
        base = self.root / prefix.rpartition("/")[0]
        found = []
        for folder, names, files in os.walk(base):
            names[:] = [name for name in names if name != _META]
            for name in files:
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix) and not name.startswith("."):
                    found.append((key, path))
        for key, path in sorted(found):
            try:
                yield ObjectInfo(key=key, size=path.stat().st_size)
            except FileNotFoundError:
                continue

    @_told
    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects and what is known of them."""
        for key in keys:
            self._path(key).unlink(missing_ok=True)
            self._meta_path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if any(part.startswith(".") for part in check_key(key).split("/")):
            raise ValueError(f"{key!r} is not a key of a folder: a part begins with a dot")
        return self.root / key

    def _meta_path(self, key: str) -> Path:
        return self.root / _META / f"{key}.json"

    def _note(self, key: str, metadata: Mapping[str, str], content_type: str) -> None:
        path = self._meta_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"contentType": content_type, "metadata": metadata}))

    def _info(self, key: str) -> ObjectInfo:
        path = self._path(key)
        size = path.stat().st_size
        try:
            known = json.loads(self._meta_path(key).read_bytes())
        except FileNotFoundError:
            known = {"contentType": None, "metadata": {SHA256: sha256_of(path)}}
        metadata = dict(known["metadata"])
        return ObjectInfo(
            key=key,
            size=size,
            sha256=metadata.pop(SHA256, None),
            content_type=known["contentType"],
            metadata=metadata,
        )
