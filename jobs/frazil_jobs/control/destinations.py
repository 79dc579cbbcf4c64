"""Where the chart's worker Deployment may recount, write manifests and remove: the destinations of the administrator.

Its credentials open every namespace's results, so what a job may name is checked here, by namespace, before it is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs.access import Access
from frazil_jobs.stores import StoreConfig

VARIABLE: Final = "FRAZIL_DESTINATIONS"
"""Path of a JSON file, a list of destinations. Without it there is one store for all jobs, that of FRAZIL_STORE."""


class Destination(BaseModel):
    """One destination, with what opens it."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")

    name: str
    uri: str
    """s3://bucket/prefix."""
    endpoint: str
    region: str | None = None
    credentials: Path
    """A folder with the files accessKey and secretKey: a Secret as it's mounted."""
    ca: Path | None = None
    namespaces: list[str] = Field(default_factory=lambda: ["*"])
    inputs: list[str] = Field(default_factory=list)
    """s3://bucket/prefix that every namespace of the destination may read prompts from."""

    @property
    def store(self) -> StoreConfig:
        """As a store. Raises BadConfiguration."""
        try:
            access_key, secret_key = (
                (self.credentials / name).read_text(encoding="utf-8").strip() for name in ("accessKey", "secretKey")
            )
        except OSError as error:
            raise BadConfiguration(
                f"can't read {error.filename}: {error.strerror}", field=f"destinations.{self.name}.credentials"
            ) from None
        return StoreConfig(
            uri=self.uri,
            endpoint=self.endpoint,
            region=self.region or None,
            access_key=access_key,
            secret_key=SecretStr(secret_key),
            ca=self.ca,
        )

    def serves(self, namespace: str) -> bool:
        """Whether jobs of a namespace may use it."""
        return "*" in self.namespaces or namespace in self.namespaces

    def readable(self, namespace: str) -> tuple[str, ...]:
        """What jobs of a namespace may read of its store."""
        own = f"{self.uri.rstrip('/')}/{namespace}/"
        return (own, *(f"{prefix.rstrip('/')}/" for prefix in self.inputs))


def load(environment: Mapping[str, str] | None = None) -> tuple[Destination, ...] | None:
    """The destinations; None for a worker of one store. Raises BadConfiguration."""
    path = (os.environ if environment is None else environment).get(VARIABLE)
    if not path:
        return None
    try:
        found = TypeAdapter(list[Destination]).validate_python(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise BadConfiguration(f"can't read {path}: {error.strerror}", field=VARIABLE) from None
    except (ValueError, ValidationError) as error:
        raise BadConfiguration(f"{path} makes no sense: {str(error).splitlines()[0]}", field=VARIABLE) from None
    return tuple(found)


def access_for(namespace: str, destination: str, *, local_files: bool) -> tuple[StoreConfig, Access]:
    """The store of a namespace's results, and what may be read for it. Raises BadConfiguration."""
    known = load()
    if known is None:
        store = StoreConfig.from_env()
        if store is None:
            raise BadConfiguration("must be set", field=f"FRAZIL_STORE or {VARIABLE}")
        return store, Access.from_env(local_files=local_files)
    found = next((one for one in known if one.name == destination and one.serves(namespace)), None)
    if found is None:
        raise BadConfiguration(
            f"there is no destination {destination!r} that serves the namespace {namespace!r}",
            field="spec.output.destination",
            remedy="the chart's values name the destinations and their namespaces",
        )
    readable = tuple(prefix for one in known if one.serves(namespace) for prefix in one.readable(namespace))
    access = Access.from_env(local_files=local_files)
    return found.store, replace(access, store=found.store, readable=readable)
