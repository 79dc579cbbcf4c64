"""What a store does, and what can go wrong with one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from frazil_jobs.base.exits import BadConfiguration, TryAgain

SHA256: Final = "sha256"
"""The metadata name under which every object that Frazil puts carries the sha256 of its bytes."""


class StoreUnreachable(TryAgain):
    """The store doesn't answer, or answers that it can't just now."""


class StoreDenied(BadConfiguration):
    """The store refuses: wrong credentials, no right, no such bucket."""


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One object as its store describes it. A listing gives key, size and etag only."""

    key: str
    size: int
    """Bytes."""
    sha256: str | None = None
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    etag: str | None = None
    """Changes when the bytes do; says nothing of what they are."""


class ObjectStore(Protocol):
    """The interface. All methods raise StoreUnreachable or StoreDenied, and ValueError for what is no key (base.keys)."""

    @property
    def where(self) -> str:
        """The root, for people: `s3://bucket/prefix at http://host`, or a folder. Never holds a secret."""
        ...

    def put_file(
        self, key: str, path: Path, *, sha256: str, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Store a file, whole or not at all, over whatever had that key."""
        ...

    def put_bytes(
        self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Store bytes."""
        ...

    def get_file(self, key: str, path: Path) -> ObjectInfo:
        """Write an object to `path`, whole or not at all. Raises FileNotFoundError."""
        ...

    def get_bytes(self, key: str, *, limit: int | None = None) -> bytes:
        """An object's bytes. Raises FileNotFoundError, and ValueError when it's larger than `limit`."""
        ...

    def stat(self, key: str) -> ObjectInfo | None:
        """What the store says of an object, with its metadata; None when there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in the order of their keys."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that isn't there is no error."""
        ...
