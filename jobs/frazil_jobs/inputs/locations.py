"""Where inputs lie: `hf://` `s3://` `file://` `pvc://` and plain paths, read in one place.

A plain path is relative to the job file. Which schemes may be used where is decided by the readers: a location is only
a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from frazil_jobs.base.exits import BadConfiguration

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CLAIM = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
MAX_BYTES = 1024
"""Of a key or a relative path."""
SCHEMES = "hf://owner/name, s3://bucket/path, file:///path, pvc://claim/path or a path relative to the job file"


@dataclass(frozen=True)
class Hub:
    """A model repository of the Hugging Face hub."""

    repository: str

    def __str__(self) -> str:
        return f"hf://{self.repository}"


@dataclass(frozen=True)
class Bucket:
    """An object, or all objects below a prefix, of an S3 bucket. `key` has no slash at either end."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Local:
    """A file or folder that this process can open."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Claim:
    """A file or folder of a PersistentVolumeClaim, which the pod has mounted."""

    claim: str
    path: str

    def __str__(self) -> str:
        return f"pvc://{self.claim}/{self.path}"


Location = Hub | Bucket | Local | Claim


def parse(uri: str, *, base_dir: Path, field: str) -> Location:
    """The location that `uri` names. Raises BadConfiguration that names `field`."""
    if not uri or not uri.isprintable():
        raise BadConfiguration("is empty or holds unprintable characters", field=field, remedy=f"give {SCHEMES}")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Local((base_dir / (Path(uri).expanduser() if uri.startswith("~/") else uri)).absolute())
    readers = {"hf": _hub, "s3": _bucket, "file": _local, "pvc": _claim}
    if scheme not in readers:
        raise BadConfiguration(f"{scheme}:// is not read", field=field, remedy=f"give {SCHEMES}")
    return readers[scheme](rest, field)


def resolve_claim(claim: Claim, *, root: Path | None, field: str) -> Local:
    """Where the claim is mounted, below FRAZIL_PVC_ROOT."""
    if root is None:
        raise BadConfiguration(
            f"{claim} is a volume of a cluster, and this is none",
            field=field,
            remedy="give a path, s3:// or hf:// for `frazil run`",
        )
    return Local(root / claim.claim / claim.path)


def clean_path(path: str) -> str | None:
    """A relative POSIX path without `.`; None for one that is absolute, climbs out with `..` or is no file name."""
    if not path.isprintable() or "\\" in path or path.startswith("/") or len(path.encode(errors="replace")) > MAX_BYTES:
        return None
    parts = [part for part in PurePosixPath(path).parts if part != "."]
    if not parts or ".." in parts or any(len(part.encode(errors="replace")) > 255 for part in parts):
        return None
    return "/".join(parts)


def _hub(rest: str, field: str) -> Location:
    parts = rest.strip("/").split("/")
    if len(parts) != 2 or not all(_HUB_NAME.fullmatch(part) and ".." not in part for part in parts):
        raise BadConfiguration(
            f"hf://{rest} is no repository",
            field=field,
            remedy="write hf://owner/name; the revision and the file of a LoRA (weightName) have fields of their own",
        )
    return Hub("/".join(parts))


def _bucket(rest: str, field: str) -> Location:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise BadConfiguration(f"{bucket!r} is no bucket's name", field=field, remedy="write s3://bucket/path")
    clean = clean_path(key.strip("/"))
    if clean is None:
        raise BadConfiguration(
            f"s3://{rest} names no object below the bucket", field=field, remedy="write s3://bucket/path"
        )
    return Bucket(bucket, clean)


def _local(rest: str, field: str) -> Location:
    host, slash, path = rest.partition("/")
    plain = unquote(path)
    if host not in ("", "localhost") or not slash or not plain.isprintable():
        raise BadConfiguration(
            f"file://{rest} is no path of this machine",
            field=field,
            remedy="write file:///absolute/path, or a path relative to the job file",
        )
    return Local(Path("/" + plain))


def _claim(rest: str, field: str) -> Location:
    claim, _, path = rest.partition("/")
    clean = clean_path(path.strip("/")) if path.strip("/") else "."
    if not _CLAIM.fullmatch(claim) or clean is None:
        raise BadConfiguration(f"pvc://{rest} names no folder of a claim", field=field, remedy="write pvc://claim/path")
    return Claim(claim, clean)
