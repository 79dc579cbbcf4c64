"""Where a job of the cluster has its results, opened with what this namespace may read: `fetch` of a name."""

from __future__ import annotations

import base64
import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from frazil_cli.cluster.client import Cluster, Forbidden, NotFound, Object, path_of
from frazil_cli.cluster.forward import forwarded, service_of
from frazil_jobs.base.exits import BadConfiguration, TryAgain
from frazil_jobs.stores import StoreConfig

READ: Final = "read"
WRITE: Final = "write"
_WITH_OWN_KEYS: Final = {
    READ: "fetch with --store, --endpoint and keys of your own",
    WRITE: "put it there with any S3 client and keys of your own",
}
"""What a person may do who can't read the Secret."""


@dataclass(frozen=True)
class Reading:
    """The results of one job: the store, and the prefix in it."""

    store: StoreConfig
    prefix: str


def secret_name(destination: str, right: str) -> str:
    """The Secret of a namespace that may `read` or `write` a destination."""
    return f"frazil-{destination}-{right}"


def decoded(secret: Object) -> dict[str, str]:
    """A Secret's values."""
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in (secret.get("data") or {}).items()}


def destination_of(job: Object) -> str:
    """The destination that a job names."""
    return str(job["spec"].get("output", {}).get("destination") or "default")


@contextlib.contextmanager
def reading(cluster: Cluster, job: Object) -> Iterator[Reading]:
    """The results of `job`, readable while the context lasts. Raises FrazilError.

    The store is asked at its public endpoint; one that has none, and that is a Service of the cluster, through a forwarded
    port.
    """
    uri = (job.get("status") or {}).get("outputs", {}).get("uri")
    name = job["metadata"]["name"]
    if not uri:
        phase = (job.get("status") or {}).get("phase") or "new to the operator"
        raise TryAgain(
            f"{name} has no results yet: it is {phase}", remedy=f"look on with `frazil watch {name}`, then fetch it"
        )
    values = rights(cluster, destination_of(job), READ)
    with opened(cluster, values) as config:
        yield Reading(config, prefix_of(uri, config))


@contextlib.contextmanager
def opened(cluster: Cluster, values: Mapping[str, str]) -> Iterator[StoreConfig]:
    """The store that a Secret's values name, reachable from here while the context lasts."""
    with contextlib.ExitStack() as stack:
        endpoint = values.get("publicEndpoint") or values["endpoint"]
        address = None if values.get("publicEndpoint") else service_of(endpoint)
        if address is not None:
            if urlsplit(endpoint).scheme == "https":
                raise BadConfiguration(
                    f"the store speaks TLS as {endpoint}, a name that only the cluster knows",
                    field="publicEndpoint",
                    remedy="ask the administrator for a public endpoint of the destination (values: publicEndpoint)",
                )
            endpoint = f"http://127.0.0.1:{stack.enter_context(forwarded(cluster, address))}"
        ca = None
        if values.get("ca.crt"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="frazil-ca-")))
            ca = folder / "ca.crt"
            ca.write_text(values["ca.crt"])
        yield StoreConfig.model_validate(
            {
                "uri": root_of(values),
                "endpoint": endpoint,
                "region": values.get("region") or None,
                "access_key": values["accessKey"],
                "secret_key": values["secretKey"],
                "ca": ca,
            }
        )


def root_of(values: Mapping[str, str]) -> str:
    """The destination itself: s3://bucket/prefix."""
    return urlunsplit(("s3", values["bucket"], values.get("prefix", "").strip("/"), "", ""))


def prefix_of(uri: str, config: StoreConfig) -> str:
    """A job's prefix below its destination. Raises BadConfiguration when it isn't below it."""
    root = config.uri.rstrip("/") + "/"
    if not uri.startswith(root):
        raise BadConfiguration(
            f"the results are in {uri}, and this namespace's Secret is for {config.uri}",
            field="status.outputs.uri",
            remedy="the destination was changed since: fetch them with --store and --endpoint, from where they are",
        )
    return uri.removeprefix(root).strip("/")


def rights(cluster: Cluster, destination: str, right: str) -> dict[str, str]:
    """What opens a destination with this namespace's right to `read` or `write`. Raises BadConfiguration and Forbidden."""
    name = secret_name(destination, right)
    try:
        values = decoded(cluster.get(path_of("v1", "secrets", namespace=cluster.namespace, name=name)))
    except NotFound:
        raise BadConfiguration(
            f"the namespace {cluster.namespace!r} has no Secret {name}, which holds the right to {right} there",
            field="-n",
            remedy=f"ask the administrator to add {cluster.namespace!r} to `tenants` of the chart's values",
        ) from None
    except Forbidden as error:
        raise Forbidden(
            error.message,
            remedy=f"you need the right to get the Secret {name} of {cluster.namespace!r}; or {_WITH_OWN_KEYS[right]}",
        ) from None
    missing = [key for key in ("endpoint", "bucket", "accessKey", "secretKey") if not values.get(key)]
    if missing:
        raise BadConfiguration(
            f"the Secret {name} lacks {', '.join(missing)}", field=name, remedy="docs/operations.md says what it holds"
        )
    return values
