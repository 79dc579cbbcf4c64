"""What `fetch` and `inspect` may read with: credentials of the store, the hub's token, mounted volumes, the cache.

Read from the environment once, at the edge. The compute process never has any of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from frazil_jobs.base.exits import BadConfiguration, TryAgain
from frazil_jobs.inputs import locations
from frazil_jobs.stores import ObjectStore, StoreConfig, StoreDenied, open_store

CACHE_VARIABLE = "FRAZIL_MODEL_CACHE"
CLAIMS_VARIABLE = "FRAZIL_PVC_ROOT"
CONFIG_MAP_VARIABLE = "FRAZIL_PROMPTS_FILE"
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105
HUB_VARIABLE = "HF_ENDPOINT"


@dataclass(frozen=True)
class Access:
    """The means of one process to read inputs."""

    cache: Path
    """Models and LoRA files, kept between jobs."""
    store: StoreConfig | None = None
    """Its endpoint and credentials are used for every `s3://` location; its own bucket only for outputs."""
    hub_endpoint: str | None = None
    hub_token: SecretStr | None = field(default=None, repr=False)
    claims_root: Path | None = None
    """Where the pod mounts claims, a folder each."""
    config_map_file: Path | None = None
    """Where the pod mounts the ConfigMap key with the prompts."""
    local_files: bool = True
    """False in a process that works for others: it reads no path of its own machine for them."""
    readable: tuple[str, ...] | None = None
    """s3:// prefixes that may be read, of a process whose credentials open more than the job's; None: all."""

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None, *, local_files: bool = True) -> Access:
        """What the environment of this process allows."""
        env = os.environ if environment is None else environment
        token = env.get(TOKEN_VARIABLE, "").strip()
        return cls(
            cache=Path(env[CACHE_VARIABLE]) if env.get(CACHE_VARIABLE) else default_cache(env),
            store=StoreConfig.from_env(env),
            hub_endpoint=env.get(HUB_VARIABLE) or None,
            hub_token=SecretStr(token) if token else None,
            claims_root=Path(env[CLAIMS_VARIABLE]) if env.get(CLAIMS_VARIABLE) else None,
            config_map_file=Path(env[CONFIG_MAP_VARIABLE]) if env.get(CONFIG_MAP_VARIABLE) else None,
            local_files=local_files,
        )

    def open_bucket(self, bucket: str, *, field: str) -> ObjectStore:
        """The whole of `bucket`, at the store's endpoint and with its credentials."""
        if self.store is None:
            raise BadConfiguration(
                f"s3://{bucket} can't be read: no endpoint and no credentials are known",
                field=field,
                remedy="set FRAZIL_S3_ENDPOINT, FRAZIL_S3_ACCESS_KEY and FRAZIL_S3_SECRET_KEY",
            )
        return open_store(self.store.model_copy(update={"uri": f"s3://{bucket}"}))

    def locate(self, uri: str, *, base_dir: Path, field: str) -> locations.Hub | locations.Bucket | locations.Local:
        """Where `uri` is for this process; claims are resolved. Raises BadConfiguration."""
        location = locations.parse(uri, base_dir=base_dir, field=field)
        if isinstance(location, locations.Claim):
            return locations.resolve_claim(location, root=self.claims_root, field=field)
        if isinstance(location, locations.Bucket) and not self._may_read(location):
            raise BadConfiguration(
                f"{uri} may not be read from this namespace",
                field=field,
                remedy=f"put it below {' or '.join(self.readable or ('nothing',))}",
            )
        if isinstance(location, locations.Local) and not self.local_files:
            raise BadConfiguration(
                f"{uri} is a path, and a cluster has no such machine",
                field=field,
                remedy="give s3://, hf:// or pvc://",
            )
        return location

    def _may_read(self, location: locations.Bucket) -> bool:
        where = f"s3://{location.bucket}/{location.key}"
        return self.readable is None or any(where.startswith(prefix) for prefix in self.readable)


@contextmanager
def named(field: str, what: object) -> Iterator[None]:
    """Errors of a store, told as errors of the `field` of the spec that names `what`."""
    try:
        yield
    except StoreDenied as error:
        raise BadConfiguration(f"{what} can't be read: {error.message}", field=field, remedy=error.remedy) from error
    except FileNotFoundError as error:
        raise TryAgain(f"{what} was there and is gone: {error}", field=field) from error


def default_cache(environment: Mapping[str, str]) -> Path:
    """Where models are kept when nothing says otherwise: the person's own cache folder."""
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "frazil" / "models"
