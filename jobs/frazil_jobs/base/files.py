"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import tempfile
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader, or a crash at any moment, sees the old file or the new one, never a part."""
    raw = data.encode() if isinstance(data, str) else data
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Make what is in a file, or renames in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def content_type_of(path: Path) -> str:
    """The media type that a file's name stands for."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def read_json(path: Path) -> Any:
    """The JSON document in `path`."""
    return json.loads(path.read_bytes())
