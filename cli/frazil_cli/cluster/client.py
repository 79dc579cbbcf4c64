"""A small synchronous client: plain objects, a time-out on every call, bounded tries, errors that say the way out.

The official client does kubeconfig, credentials and TLS. Objects are dicts as the API server has them: a command must get
on with fields of servers newer than itself.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from frazil_cli.cluster.access import Access, Reached, reach
from frazil_jobs.api.base import API_VERSION
from frazil_jobs.base.exits import BadConfiguration, FrazilError, TryAgain

Object = dict[str, Any]
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 20.0
TRIES: Final = 3
FIRST_PAUSE_SECONDS: Final = 0.5
PAGE: Final = 500
APPLY: Final = "application/apply-patch+yaml"
_ERRNO: Final = re.compile(r"\[Errno -?\d+\] ([^'()]+)")
JOB_PLURALS: Final = {"GenerationJob": "generationjobs", "TrainingJob": "trainingjobs"}


class Unreachable(TryAgain):
    """The API server doesn't answer, or says that it can't just now."""


class Forbidden(BadConfiguration):
    """The API server knows who asks, and says no."""


class NotFound(BadConfiguration):
    """There is no such object, or no such kind."""


class Refused(BadConfiguration):
    """The API server doesn't take an object: it's invalid, or a rule of the cluster is against it."""


class Gone(FrazilError):
    """A watch began at a version that the API server has forgotten: list again."""


def path_of(
    api_version: str, plural: str, *, namespace: str | None = None, name: str | None = None, part: str | None = None
) -> str:
    """`/apis/batch/v1/namespaces/team/jobs/ice-a0`; with `part` its subresource."""
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    where = f"/namespaces/{namespace}" if namespace else ""
    return root + where + "".join(f"/{word}" for word in (plural, name, part) if word)


def job_path(kind: str, namespace: str, name: str | None = None) -> str:
    """Where jobs of a kind are."""
    return path_of(API_VERSION, JOB_PLURALS[kind], namespace=namespace, name=name)


class Cluster:
    """One API server, as one person may use it. Threads may share it."""

    def __init__(self, reached: Reached) -> None:
        from kubernetes.client import ApiClient

        self.context = reached.context
        self.namespace = reached.namespace
        self.server = str(reached.configuration.host)
        self.configuration = reached.configuration
        self._api = ApiClient(reached.configuration)

    @classmethod
    def connect(cls, access: Access) -> Cluster:
        """The cluster that kubectl would use. Asks nothing of it yet."""
        return cls(reach(access))

    def get(self, path: str, **query: Any) -> Object:
        """An object, a list, or a page of discovery. Raises FrazilError of one of the classes above."""
        return self._tried("GET", path, query=query)

    def find(self, path: str, **query: Any) -> Object | None:
        """An object; None when it isn't there."""
        try:
            return self.get(path, **query)
        except NotFound:
            return None

    def items(self, path: str, **query: Any) -> list[Object]:
        """All objects of a collection, page by page."""
        return self.listed(path, **query)[0]

    def listed(self, path: str, **query: Any) -> tuple[list[Object], str]:
        """All objects of a collection, and the version that a watch can go on from."""
        found: list[Object] = []
        while True:
            page = self.get(path, limit=PAGE, **query)
            found += page.get("items") or []
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return found, str(meta.get("resourceVersion", ""))
            query = {**query, "continue": meta["continue"]}

    def dry_run(self, path: str, body: Mapping[str, Any], *, apply: bool = False) -> Object:
        """What the server would make of a new object: all of its checks, nothing stored. `apply`: over one that is there."""
        query = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "frazil"}
        if apply:
            return self._tried("PATCH", path, query={**query, "force": "true"}, body=body, content_type=APPLY)
        return self._tried("POST", path, query=query, body=body)

    def watch(self, path: str, *, version: str, seconds: int, **query: Any) -> Iterator[tuple[str, Object]]:
        """Changes since `version`, for so many seconds, once the server has agreed to tell them.

        Raises Gone, here or later, when the server has forgotten that version.
        """
        asked = {
            **query,
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": seconds,
            "allowWatchBookmarks": "true",
        }
        return self._changes(self._send("GET", path, query=asked, read_seconds=seconds + READ_SECONDS), path)

    def _changes(self, answer: Any, path: str) -> Iterator[tuple[str, Object]]:
        rest = b""
        try:
            for piece in answer.stream(65536):
                *lines, rest = (rest + piece).split(b"\n")
                for line in filter(None, lines):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _error(int(event["object"].get("code") or 0), json.dumps(event["object"]), self, path)
                    yield str(event["type"]), event["object"]
        except _network_errors() as error:
            raise self._unreachable(error) from None
        finally:
            answer.close()

    def served(self, api_version: str) -> frozenset[str]:
        """Kinds that the server serves in a version."""
        found = self.find(f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}")
        return frozenset(str(resource["kind"]) for resource in (found or {}).get("resources", ()))

    def clock(self) -> datetime:
        """The time by the server's own clock: that of this machine may be wrong."""
        answer = self._send("GET", "/version", query={})
        answer.read()
        said = answer.headers.get("Date")
        return parsedate_to_datetime(said) if said else datetime.now(UTC)

    def headers(self) -> dict[str, str]:
        """Credentials of a request, for who talks to the server in another way than this."""
        return dict(self._api.param_serialize("GET", "/", header_params={}, auth_settings=["BearerToken"])[2])

    def _tried(self, method: str, path: str, **request: Any) -> Object:
        """One request, some times if need be; its JSON. A write is only ever a dry run, so that it can be repeated."""
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._send(method, path, **request)
                data = answer.read()
                return dict(json.loads(data)) if data else {}
            except _network_errors() as error:
                problem: FrazilError = self._unreachable(error)
            except Unreachable as error:
                problem = error
            if attempt < TRIES:
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.8, 1.2))  # noqa: S311
        raise problem

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any],
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        read_seconds: float = READ_SECONDS,
    ) -> Any:
        """One request; the open answer of urllib3, of a status below 300."""
        from kubernetes.client.exceptions import ApiException

        headers = {"Accept": "application/json", "Content-Type": content_type}
        parameters = self._api.param_serialize(
            method=method,
            resource_path=path,
            query_params=[(name, str(value)) for name, value in query.items() if value is not None],
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._api.call_api(*parameters, _request_timeout=(CONNECT_SECONDS, read_seconds)).response
        except ApiException as error:
            if not error.status:  # the official client wraps what goes wrong with TLS
                raise self._untrusted(str(error.reason)) from None
            raise _error(int(error.status or 0), error.body or str(error.reason), self, path) from None
        except _network_errors() as error:
            raise self._unreachable(error) from None
        if answer.status >= 300:
            raise _error(answer.status, answer.read(), self, path)
        return answer

    def _unreachable(self, error: BaseException) -> FrazilError:
        from urllib3.exceptions import MaxRetryError

        cause = error.reason if isinstance(error, MaxRetryError) and error.reason is not None else error
        return Unreachable(
            f"the cluster doesn't answer at {self.server}: {_plainly(cause)}",
            remedy=f"check that it runs, and that the context {self.context!r} is the one you mean (--context)",
        )

    def _untrusted(self, reason: str) -> BadConfiguration:
        return BadConfiguration(
            f"{self.server} is not the server that the kubeconfig trusts: {reason.splitlines()[-1]}",
            field="--context",
            remedy=f"check certificate-authority and server of the context {self.context!r}",
        )


def _network_errors() -> tuple[type[BaseException], ...]:
    from urllib3.exceptions import HTTPError

    return (HTTPError, OSError, TimeoutError)


def _plainly(cause: BaseException) -> str:
    """The last words of an error of urllib3, without its objects' addresses."""
    text = str(cause)
    if found := _ERRNO.search(text):
        return found[1]
    if "timed out" in text.lower():
        return "timed out"
    if "resolve" in text.lower():
        return "its name can't be resolved"
    return text.rpartition(">: ")[2] or type(cause).__name__


def _error(status: int, body: bytes | str, cluster: Cluster, path: str) -> FrazilError:
    """The server's own words, in the class that fits."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        message = str(json.loads(text).get("message") or text)
    except (ValueError, AttributeError):
        message = text.strip()[:500]
    if status == 401:
        return BadConfiguration(
            f"the cluster does not accept the credentials of the context {cluster.context!r}",
            field="--context",
            remedy="log in again, or choose another --context",
        )
    if status == 403:
        if "is forbidden: User" in message:
            message = message.partition("is forbidden: ")[2] or message
            return Forbidden(
                f"you may not do this on the cluster: {message}",
                remedy="ask its administrator for the ClusterRole frazil-edit (or view, to look on) in the namespace",
            )
        return Refused(message, remedy="`frazil doctor` says what stands in the way")
    if status == 404:
        return NotFound(message, remedy="`frazil doctor` says whether Frazil is installed there")
    if status == 410:
        return Gone(message)
    if status in (400, 409, 415, 422):
        return Refused(message)
    return Unreachable(
        f"the cluster answers {status or 'nothing'} at {cluster.server}{path}: {message}", remedy="try again in a while"
    )
