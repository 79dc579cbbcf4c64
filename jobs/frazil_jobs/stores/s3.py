"""Any S3 endpoint, through the `minio` client: plain S3 only, time-outs and a bounded number of tries on every call."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import IO, Any, Final, ParamSpec, TypeVar
from urllib.parse import quote, unquote, urlsplit

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, ReadTimeoutError, SSLError

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.base.keys import check_key
from frazil_jobs.stores.base import SHA256, ObjectInfo, StoreDenied, StoreUnreachable
from frazil_jobs.stores.config import DEFAULT_ENDPOINT, StoreConfig

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 60.0
TRIES: Final = 2
"""Of one request; whoever calls decides whether the whole operation is worth another one."""
PART_BYTES: Final = 16 << 20
"""Objects larger than this go up in parts."""
_PIECE_BYTES: Final = 1 << 20
_DENIED: Final = {
    "AccessDenied": "the store refuses these credentials",
    "InvalidAccessKeyId": "the store doesn't know this access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "NoSuchBucket": "there is no such bucket",
    "AllAccessDisabled": "the bucket is closed",
    "AuthorizationHeaderMalformed": "the region is wrong",
    "PermanentRedirect": "the bucket is at another endpoint",
}
WAIT: Final = "check the endpoint and the network; what is done is kept"
P = ParamSpec("P")
R = TypeVar("R")


def _told(method: Callable[P, R]) -> Callable[P, R]:
    """Errors of the client as errors of a store."""

    @wraps(method)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        store = args[0]
        assert isinstance(store, S3Store)
        try:
            return method(*args, **kwargs)
        except (S3Error, InvalidResponseError, ServerError, HTTPError, ConnectionError, TimeoutError) as error:
            raise store._meaning(error) from None

    return inner


class S3Store:
    """Objects of a bucket, below a prefix. Thread-safe, as the client's connection pool is."""

    def __init__(self, config: StoreConfig) -> None:
        endpoint = urlsplit(config.endpoint or DEFAULT_ENDPOINT)
        if endpoint.scheme not in ("http", "https") or not endpoint.netloc or endpoint.path.strip("/"):
            raise BadConfiguration(
                f"{config.endpoint!r} is no endpoint", field="--endpoint", remedy="use http://host:port or https://host"
            )
        self._config = config
        self._bucket = config.bucket
        self._root = f"{config.prefix}/" if config.prefix else ""
        self._client = Minio(
            endpoint.netloc,
            access_key=config.access_key,
            secret_key=config.secret_key.get_secret_value() if config.secret_key else None,
            secure=endpoint.scheme == "https",
            region=config.region or "us-east-1",
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                retries=urllib3.Retry(total=TRIES - 1, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
                maxsize=32,
                ca_certs=str(config.ca) if config.ca else None,
            ),
        )

    @property
    def where(self) -> str:
        """Bucket, prefix and endpoint."""
        return self._config.where

    @_told
    def put_file(
        self, key: str, path: Path, *, sha256: str, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Put a file, in parts when it's large; S3 shows an object only when it's whole."""
        self._client.fput_object(
            self._bucket,
            self._name(key),
            str(path),
            content_type=content_type,
            metadata=_to_headers({**(metadata or {}), SHA256: sha256}),
            part_size=PART_BYTES,
        )
        return self._stated(key)

    @_told
    def put_bytes(
        self, key: str, data: bytes, *, content_type: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Put bytes."""
        sha256 = hashlib.sha256(data).hexdigest()
        self._client.put_object(
            self._bucket,
            self._name(key),
            io.BytesIO(data),
            len(data),
            content_type=content_type,
            metadata=_to_headers({**(metadata or {}), SHA256: sha256}),
        )
        return self._stated(key)

    @_told
    def get_file(self, key: str, path: Path) -> ObjectInfo:
        """Download through `.<name>.<etag>.part` beside `path`; what a download of the same bytes left there is kept."""
        info = self._stat(key)
        if info is None:
            raise FileNotFoundError(key)
        etag = re.sub(r"[^A-Za-z0-9-]", "", info.etag or "")
        part = path.with_name(f".{path.name}.{etag}.part")
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two that download to one place take turns
            self._append_rest(key, info, file)
        with suppress(FileNotFoundError):  # the other one has moved it
            part.replace(path)
        return info

    def _append_rest(self, key: str, info: ObjectInfo, file: IO[bytes]) -> None:
        """Append the bytes of an object that `file` lacks."""
        if os.fstat(file.fileno()).st_size > info.size:
            file.truncate(0)
        start = os.fstat(file.fileno()).st_size
        if start == info.size:
            return
        response = self._client.get_object(self._bucket, self._name(key), offset=start)
        try:
            if response.headers.get("ETag", "").strip('"') != (info.etag or "").strip('"'):
                raise StoreUnreachable(f"{self.where} has another {key} than a moment ago", remedy=WAIT)
            for piece in response.stream(_PIECE_BYTES):
                file.write(piece)
        finally:
            response.close()
            response.release_conn()
        file.flush()
        if (size := os.fstat(file.fileno()).st_size) != info.size:
            raise StoreUnreachable(f"{self.where} sent {size} bytes of {key} where {info.size} are stored")

    @_told
    def get_bytes(self, key: str, *, limit: int | None = None) -> bytes:
        """Read an object."""
        try:
            response = self._client.get_object(self._bucket, self._name(key))
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject"):
                raise FileNotFoundError(key) from None
            raise
        try:
            size = int(response.headers.get("Content-Length", "0"))
            if limit is not None and size > limit:
                raise ValueError(f"{key} has {size} bytes, more than {limit}")
            return bytes(response.read())
        finally:
            response.close()
            response.release_conn()

    @_told
    def stat(self, key: str) -> ObjectInfo | None:
        """What the store says of an object."""
        return self._stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects by key, a page at a time."""
        listing = iter(self._client.list_objects(self._bucket, prefix=self._root + prefix, recursive=True))
        while True:
            entry = self._next(listing)
            if entry is None:
                return
            if not entry.is_dir:
                yield ObjectInfo(
                    key=str(entry.object_name).removeprefix(self._root), size=int(entry.size or 0), etag=entry.etag
                )

    @_told
    def _next(self, listing: Iterator[Any]) -> Any | None:
        return next(listing, None)

    @_told
    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, a thousand a request."""
        objects = [DeleteObject(self._name(key)) for key in keys]
        for error in self._client.remove_objects(self._bucket, objects):
            raise StoreDenied(f"{self.where} keeps {error.name}: {error.message}", remedy="allow s3:DeleteObject")

    def _name(self, key: str) -> str:
        return self._root + check_key(key)

    def _stated(self, key: str) -> ObjectInfo:
        info = self._stat(key)
        if info is None:
            raise StoreUnreachable(f"{self.where} took {key} and doesn't have it")
        return info

    def _stat(self, key: str) -> ObjectInfo | None:
        try:
            found = self._client.stat_object(self._bucket, self._name(key))
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject"):
                return None
            raise
        metadata = _from_headers(found.metadata or {})
        return ObjectInfo(
            key=key,
            size=int(found.size or 0),
            sha256=metadata.pop(SHA256, None),
            content_type=found.content_type,
            metadata=metadata,
            etag=found.etag,
        )

    def _meaning(self, error: Exception) -> Exception:
        if isinstance(error, S3Error):
            if error.code in _DENIED:
                return StoreDenied(
                    f"{self.where}: {_DENIED[error.code]}",
                    field="--store",
                    remedy="check bucket, endpoint, FRAZIL_S3_ACCESS_KEY and FRAZIL_S3_SECRET_KEY",
                )
            if error.code in ("NoSuchKey", "NoSuchObject"):
                return FileNotFoundError(str(error.object_name))
            return StoreUnreachable(f"{self.where} answers {error.code}: {error.message}")
        if isinstance(error, ServerError) and error.status_code in (401, 403):
            return StoreDenied(f"{self.where} refuses", field="--store", remedy="check the credentials")
        return StoreUnreachable(f"{self.where} doesn't answer: {_cause(error)}", remedy=WAIT)


def _cause(error: BaseException) -> str:
    """Why a server doesn't answer, in the words of the network rather than the client's class names."""
    reason = getattr(error, "reason", None)
    inner = reason if isinstance(reason, BaseException) else error
    if isinstance(inner, NameResolutionError):
        return "its name can't be resolved"
    if isinstance(inner, SSLError):
        return f"TLS fails ({inner})"
    for cause in (inner.__cause__, inner):  # before the time-out, of which urllib3 makes a refused connection a kind
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    if isinstance(inner, ConnectTimeoutError):
        return f"no connection within {CONNECT_SECONDS:.0f} s"
    if isinstance(inner, ReadTimeoutError):
        return f"silent for {READ_SECONDS:.0f} s"
    if isinstance(inner, InvalidResponseError):
        return "what answers there is no S3 server"
    return type(inner).__name__


def _to_headers(metadata: Mapping[str, str]) -> dict[str, str | list[str] | tuple[str]]:
    """Metadata go in headers: ASCII, without case, so the names get dashes and the values are quoted."""
    return {name.lower().replace("_", "-"): quote(value, safe=" /:;,=+()[]{}.-") for name, value in metadata.items()}


def _from_headers(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = "x-amz-meta-"
    lowered = {name.lower(): value for name, value in headers.items()}
    return {
        name.removeprefix(prefix).replace("-", "_"): unquote(value)
        for name, value in lowered.items()
        if name.startswith(prefix)
    }
