"""Where a store is and what opens it, from the environment and into that of a child."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr

from frazil_jobs.base.exits import BadConfiguration

STORE_VARIABLE = "FRAZIL_STORE"
_VARIABLES = {
    "endpoint": "FRAZIL_S3_ENDPOINT",
    "region": "FRAZIL_S3_REGION",
    "access_key": "FRAZIL_S3_ACCESS_KEY",
    "secret_key": "FRAZIL_S3_SECRET_KEY",
    "ca": "FRAZIL_S3_CA",
}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
DEFAULT_ENDPOINT = "https://s3.amazonaws.com"


class StoreConfig(BaseModel):
    """A store: `file:///folder`, or `s3://bucket/prefix` at an endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    endpoint: str | None = None
    """`http://host:port` or `https://host`."""
    region: str | None = None
    access_key: str | None = None
    secret_key: SecretStr | None = None
    ca: Path | None = None
    """Certificates to trust beside the system's."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self | None:
        """The store that FRAZIL_STORE and FRAZIL_S3_* say, each also as NAME_FILE; None without FRAZIL_STORE."""
        uri = env.get(STORE_VARIABLE)
        if not uri:
            return None
        return cls(
            uri=uri, **{name: value for name, variable in _VARIABLES.items() if (value := _value(env, variable))}
        )

    def to_env(self) -> dict[str, str]:
        """The variables that `from_env` reads. Holds the secret: only for a child that may have it."""
        values = {name: getattr(self, name) for name in _VARIABLES}
        plain = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in values.items()
            if value is not None
        }
        return {STORE_VARIABLE: self.uri, **{_VARIABLES[name]: value for name, value in plain.items()}}

    @property
    def is_folder(self) -> bool:
        """Whether it's a folder of this machine."""
        return self.uri.startswith("file://")

    @property
    def folder(self) -> Path:
        """The folder of a `file://` store."""
        return Path(unquote(urlsplit(self.uri).path))

    @property
    def bucket(self) -> str:
        """The bucket of an `s3://` store."""
        return urlsplit(self.uri).netloc

    @property
    def prefix(self) -> str:
        """The prefix within the bucket, without slashes at its ends."""
        return urlsplit(self.uri).path.strip("/")

    @property
    def where(self) -> str:
        """The store, for people."""
        return str(self.folder) if self.is_folder else f"{self.uri.rstrip('/')} at {self.endpoint or DEFAULT_ENDPOINT}"

    def checked(self) -> Self:
        """This config, or BadConfiguration when it can't name a store."""
        parts = urlsplit(self.uri)
        if parts.scheme not in ("file", "s3") or (parts.scheme == "s3" and not parts.netloc):
            raise BadConfiguration(
                f"{self.uri!r} names no store", field="--store", remedy="use a folder, or s3://bucket/prefix"
            )
        if parts.scheme == "s3" and not _BUCKET.fullmatch(parts.netloc):
            raise BadConfiguration(
                f"{parts.netloc!r} can't be a bucket's name",
                field="--store",
                remedy="write s3://bucket/prefix; a bucket has 3 to 63 lower-case letters, digits, . and -",
            )
        if parts.scheme == "s3" and bool(self.access_key) != bool(self.secret_key):
            raise BadConfiguration(
                "access key and secret key go together", field="FRAZIL_S3_ACCESS_KEY, FRAZIL_S3_SECRET_KEY"
            )
        return self


def _value(env: Mapping[str, str], variable: str) -> str | None:
    if value := env.get(variable):
        return value
    if path := env.get(f"{variable}_FILE"):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise BadConfiguration(f"can't read {path}: {error.strerror}", field=f"{variable}_FILE") from None
    return None
