"""What may be the key of an object: a name below a root, in any store, that can't climb out of it."""

from __future__ import annotations

from typing import Final

MAX_KEY_BYTES: Final = 1024
MAX_PART_BYTES: Final = 200
"""Of one part between slashes: file systems end at 255, and temporary names need some."""


def check_key(key: str) -> str:
    """`key`, if it's relative, of plain parts, with nothing to climb or to hide with. Raises ValueError."""
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{key!r} is not a key: it has an empty, '.' or '..' part")
    if "\\" in key or not key.isprintable():
        raise ValueError(f"{key!r} is not a key: it has a backslash or a control character")
    if len(key.encode()) > MAX_KEY_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        raise ValueError(f"{key[:60]!r}… is not a key: it's too long")
    return key
