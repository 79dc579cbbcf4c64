"""A small client: get, server-side apply, merge patch, delete, discovery. Every call has a time-out and a class of error.

Nothing is retried here: the work queue does that, with what is seen then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from kubernetes.aio import client as official
from kubernetes.aio import config as official_config
from kubernetes.aio.client.exceptions import ApiException

from frazil_operator.build.labels import MANAGER
from frazil_operator.kube.paths import path_of

TIMEOUT_SECONDS: Final = 30.0
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
Count = Callable[[str, str], None]
"""Called with verb and resource of each write."""


class KubeError(Exception):
    """The API server said no, or nothing. `reason` is its own word."""

    def __init__(self, status: int, reason: str, message: str, *, causes: frozenset[str] = frozenset()) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        """Reasons of the details."""


class NotFound(KubeError):
    """404: it's gone, or was never there."""


class Conflict(KubeError):
    """409: somebody else wrote since, or the object is another one by now."""


class Invalid(KubeError):
    """422 or 400: the object can't be. Trying again does not help."""


class Forbidden(KubeError):
    """401 or 403: the operator's role lacks a right."""


class Unavailable(KubeError):
    """5xx, 429, a time-out, a broken connection: try again later."""


_CLASSES: Final[Mapping[int, type[KubeError]]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: Invalid,
}


class Kube:
    """One connection pool to one API server."""

    def __init__(self, api: official.ApiClient, *, count: Count | None = None) -> None:
        self._api = api
        self._count = count or (lambda verb, resource: None)

    @classmethod
    async def connect(cls, *, count: Count | None = None) -> Kube:
        """From the pod's service account, or the kubeconfig of a person."""
        configuration = official.Configuration()
        try:
            official_config.load_incluster_config(client_configuration=configuration)
        except official_config.ConfigException:
            await official_config.load_kube_config(client_configuration=configuration)
        configuration.connection_pool_maxsize = 64
        return cls(official.ApiClient(configuration), count=count)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """An object or a list."""
        return await self.request("GET", path, query=query)

    async def apply(self, thing: Mapping[str, Any]) -> dict[str, Any]:
        """Server-side apply, forced, by the one field manager."""
        meta = thing["metadata"]
        path = path_of(thing["apiVersion"], thing["kind"], meta["namespace"], meta["name"])
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self._write("apply", thing["kind"], "PATCH", path, body=thing, content_type=_APPLY, query=query)

    async def merge(self, kind: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A merge patch; with metadata.resourceVersion in it, only of the object as it was seen."""
        verb = "status" if path.endswith("/status") else "patch"
        query = {"fieldManager": MANAGER}
        return await self._write(verb, kind, "PATCH", path, body=body, content_type=_MERGE, query=query)

    async def create(self, kind: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A new object."""
        query = {"fieldManager": MANAGER}
        return await self._write("create", kind, "POST", path, body=body, content_type="application/json", query=query)

    async def replace(self, kind: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The whole object, at the resourceVersion that it carries."""
        return await self._write("update", kind, "PUT", path, body=body, content_type="application/json", query={})

    async def delete(
        self, kind: str, path: str, *, uid: str | None = None, propagation: str = "Background", grace: int | None = None
    ) -> None:
        """Delete an object, if it still has that uid. One that is gone already is fine."""
        body: dict[str, Any] = {"propagationPolicy": propagation}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._write("delete", kind, "DELETE", path, body=body, content_type="application/json", query={})
        except NotFound:
            return

    async def serves(self, api_version: str, kind: str) -> bool:
        """Whether the API server serves a kind in a version just now."""
        try:
            found = await self.get(f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}")
        except NotFound:
            return False
        return any(resource.get("kind") == kind for resource in found.get("resources", ()))

    async def namespace_ends(self, namespace: str) -> bool:
        """Whether a namespace is being deleted: what its API says to a ConfigMap that is only tried. (An operator for some
        namespaces may not read any.)"""
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "frazil-"}}
        try:
            await self.request("POST", path_of("v1", "ConfigMap", namespace), body=body, query={"dryRun": "All"})
        except Forbidden as error:
            return "NamespaceTerminating" in error.causes
        except NotFound:
            return True
        return False

    async def _write(
        self,
        verb: str,
        kind: str,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any],
        content_type: str,
        query: Mapping[str, str],
    ) -> dict[str, Any]:
        self._count(verb, kind)
        return await self.request(method, path, body=body, content_type=content_type, query=query)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
    ) -> dict[str, Any]:
        """One request; its JSON. Raises a KubeError."""
        headers = {"Accept": accept, "Content-Type": content_type}
        try:
            parameters = await self._api.param_serialize(
                method=method,
                resource_path=path,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._api.call_api(*parameters)
                data = await answer.read()
        except ApiException as error:
            raise _error(int(error.status or 0), error.body or error.reason) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(0, type(error).__name__, str(error)) from None
        if answer.status >= 300:
            raise _error(answer.status, data)
        found = json.loads(data) if data else {}
        assert isinstance(found, dict), "the API server answers in objects"
        return found


def _error(status: int, body: Any) -> KubeError:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        said = json.loads(text)
        reason, message = str(said.get("reason", "")), str(said.get("message", ""))
        causes = frozenset(str(one.get("reason")) for one in (said.get("details") or {}).get("causes") or ())
    except ValueError:
        reason, message, causes = "", text[:500], frozenset()
    return _CLASSES.get(status, Unavailable)(status, reason, message, causes=causes)
