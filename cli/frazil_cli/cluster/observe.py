"""Gathers what `doctor` judges. What a person may not see is noted as unknown, and never ends the look."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from frazil_cli.cluster.checks.credentials import wanted
from frazil_cli.cluster.client import JOB_PLURALS, Cluster, Forbidden, NotFound, Object, path_of
from frazil_cli.cluster.forward import forwarded, service_of
from frazil_cli.cluster.installation import Installation, find_installation, labelled
from frazil_cli.cluster.jobs import all_jobs
from frazil_cli.cluster.manifests import manifests, pod_of, settings_as_default
from frazil_cli.cluster.observed import Objects, Observed, Probe, Unknown
from frazil_cli.cluster.planned import gang_provider
from frazil_cli.cluster.results import READ, decoded, opened, secret_name
from frazil_cli.cluster.trial import Trial, attempt
from frazil_jobs.api.base import API_VERSION, GROUP
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import job_of
from frazil_jobs.base.exits import FrazilError
from frazil_operator.build.labels import MANAGED
from frazil_operator.settings import Settings

T = TypeVar("T")
FRAZIL: Final = "app.kubernetes.io/name=frazil"
ANSWER_SECONDS: Final = 10.0
"""Of the broker."""


def observe(cluster: Cluster, *, system: str | None, probe: bool) -> Observed:
    """Look at everything. Raises Unreachable when the cluster is away."""
    namespace = cluster.namespace
    installed = _seen("the operator's settings", lambda: find_installation(cluster, system))
    place, settings, problem = _place(installed, system)
    jobs = [job for kind in JOB_PLURALS for job in all_jobs(cluster, kind)]
    secrets = _secrets(cluster, jobs, settings)

    # A lookup by name needs no right to list.
    def own(version: str, plural: str, **query: Any) -> Objects:
        return _listed(plural, lambda: cluster.items(path_of(version, plural, namespace=namespace), **query))

    def systems(version: str, plural: str) -> Objects:
        if not isinstance(place, str):
            return Unknown("the installation can't be seen") if isinstance(place, Unknown) else ()
        return _listed(f"{plural} of {place}", lambda: labelled(cluster, version, plural, FRAZIL, place))

    return Observed(
        now=cluster.clock(),
        namespace=namespace,
        served=cluster.served(API_VERSION),
        definitions=_definitions(cluster),
        system=place,
        settings=settings,
        settings_problem=problem,
        deployments=systems("apps/v1", "deployments"),
        lease=_lease(cluster, place, settings),
        system_pods=systems("v1", "pods"),
        nodes=_listed("nodes", lambda: cluster.items(path_of("v1", "nodes"))),
        namespace_object=_seen("the namespace", lambda: cluster.find(path_of("v1", "namespaces", name=namespace))),
        quotas=own("v1", "resourcequotas"),
        jobs=tuple(jobs),
        pods=own("v1", "pods", labelSelector=f"{MANAGED}=true"),
        events=own("v1", "events"),
        secrets=secrets if isinstance(secrets, Unknown) else {name: _keys(one) for name, one in secrets.items()},
        gang_provider=gang_provider(cluster),
        kueue=any(group.get("name") == "kueue.x-k8s.io" for group in cluster.get("/apis").get("groups", ())),
        trial=_trial(cluster, settings),
        stores=_stores(cluster, secrets, jobs) if probe else {},
        broker=_broker(cluster, secrets, settings) if probe else Unknown("not asked (--no-probe)"),
    )


def _seen(what: str, look: Callable[[], T]) -> T | Unknown:
    try:
        return look()
    except Forbidden:
        return Unknown(f"you may not see {what}")
    except NotFound:
        return Unknown(f"the server does not serve {what}")


def _listed(what: str, look: Callable[[], list[Object]]) -> Objects:
    found = _seen(what, look)
    return found if isinstance(found, Unknown) else tuple(found)


def _place(
    installed: Installation | Unknown | None, system: str | None
) -> tuple[str | Unknown | None, Settings | None, str]:
    if isinstance(installed, Unknown):
        return system or installed, None, ""
    if installed is None:
        return None, None, ""
    return installed.namespace, installed.settings, installed.problem


def _definitions(cluster: Cluster) -> Objects:
    def look() -> list[Object]:
        path = path_of("apiextensions.k8s.io/v1", "customresourcedefinitions")
        found = [cluster.find(f"{path}/{plural}.{GROUP}") for plural in JOB_PLURALS.values()]
        return [one for one in found if one is not None]

    return _listed("the definitions", look)


def _lease(cluster: Cluster, place: str | Unknown | None, settings: Settings | None) -> Object | Unknown | None:
    if not isinstance(place, str) or settings is None:
        return Unknown("the installation can't be seen")
    path = path_of("coordination.k8s.io/v1", "leases", namespace=settings.lease_namespace, name=settings.lease_name)
    return _seen("the operator's Lease", lambda: cluster.find(path))


def _secrets(
    cluster: Cluster, jobs: list[Object], settings: Settings | None
) -> dict[str, dict[str, str] | None] | Unknown:
    """The Secrets that jobs need, by name; None for one that isn't there."""
    found: dict[str, dict[str, str] | None] = {}
    for name in wanted(cluster.namespace, jobs, settings):
        path = path_of("v1", "secrets", namespace=cluster.namespace, name=name)
        one = _seen(f"the Secret {name}", lambda path=path: cluster.find(path))  # type: ignore[misc]
        if isinstance(one, Unknown):
            return one
        found[name] = decoded(one) if one is not None else None
    return found


def _keys(values: Mapping[str, str] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(key for key, value in values.items() if value)


def _trial(cluster: Cluster, settings: Settings | None) -> Trial | Unknown:
    """A pod such as a small job has, in a dry run."""
    job = job_of(
        {
            "apiVersion": API_VERSION,
            "kind": "GenerationJob",
            "metadata": {"name": "frazil-doctor", "namespace": cluster.namespace},
            "spec": {"model": {"uri": "hf://none/none"}, "prompts": {"inline": ["a prompt"]}},
        }
    )
    assert isinstance(job, GenerationJob)
    made = manifests(job, pin=None, settings=settings or settings_as_default(job))
    if made.refusal:  # of the settings, which another check tells
        made = manifests(job, pin=None, settings=settings_as_default(job))
    pods = [pod for child in made.children if (pod := pod_of(child)) is not None]
    tried = attempt(cluster, pods[0])
    return tried if tried.accepted is not None else Unknown("you may not create pods here, not even in a dry run")


def _stores(
    cluster: Cluster, secrets: Mapping[str, Mapping[str, str] | None] | Unknown, jobs: list[Object]
) -> dict[str, Probe | Unknown]:
    """Ask each store for one name below the namespace's own prefix, with the Secret that reads it."""
    if isinstance(secrets, Unknown):
        return {}
    found: dict[str, Probe | Unknown] = {}
    for name, values in secrets.items():
        if name.endswith(f"-{READ}") and values:
            destination = name.removeprefix("frazil-").removesuffix(f"-{READ}")
            assert secret_name(destination, READ) == name
            found[destination] = _store(cluster, values)
    return found


def _store(cluster: Cluster, values: Mapping[str, str]) -> Probe | Unknown:
    from frazil_jobs.stores import StoreDenied, open_store

    try:
        with opened(cluster, values) as config:
            next(iter(open_store(config).list(f"{cluster.namespace}/")), None)
            return Probe(ok=True)
    except StoreDenied as error:
        return Probe(ok=False, message=error.message, denied=True)
    except (Forbidden, NotFound) as error:
        return Unknown(f"no port can be forwarded to it: {error.message}")
    except FrazilError as error:
        return Probe(ok=False, message=error.message)
    except KeyError as error:
        return Unknown(f"its Secret lacks {error}")


def _broker(
    cluster: Cluster, secrets: Mapping[str, Mapping[str, str] | None] | Unknown, settings: Settings | None
) -> Probe | Unknown:
    """Say AUTH and PING, as `upload` would."""
    if isinstance(secrets, Unknown):
        return secrets
    url = (secrets.get(settings.redis_secret if settings else "frazil-redis") or {}).get("url")
    if not url:
        return Unknown("its Secret is not there")
    try:
        with _reachable(cluster, url) as (host, port):
            return ping(host, port, url)
    except (Forbidden, NotFound) as error:
        return Unknown(f"no port can be forwarded to it: {error.message}")
    except FrazilError as error:
        return Probe(ok=False, message=error.message)
    except OSError as error:
        return Probe(ok=False, message=str(error.strerror or error))


@contextmanager
def _reachable(cluster: Cluster, url: str) -> Iterator[tuple[str, int]]:
    address = service_of(url)
    if address is None:
        parts = urlsplit(url)
        yield str(parts.hostname), parts.port or 6379
        return
    with forwarded(cluster, address) as port:
        yield "127.0.0.1", port


def ping(host: str, port: int, url: str) -> Probe | Unknown:
    """AUTH and PING in Redis' own protocol: it needs no more than a socket. Raises OSError."""
    parts = urlsplit(url)
    if parts.scheme != "redis":
        return Unknown(f"{parts.scheme}:// is not asked from here")
    words = [unquote(word) for word in (parts.username or "", parts.password or "") if word]
    lines = [_command("AUTH", *words)] if words else []
    with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(b"".join([*lines, _command("PING")]))
        with connection.makefile("rb") as answers:
            for _ in range(len(lines) + 1):
                said = answers.readline().decode(errors="replace").strip()
                if not said:
                    return Probe(ok=False, message="it closes the connection")
                if said.startswith("-"):
                    return Probe(ok=False, message=said[1:], denied=said.startswith(("-WRONGPASS", "-NO", "-ERR AUTH")))
    return Probe(ok=True)


def _command(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts += [f"${len(data)}\r\n".encode(), data, b"\r\n"]
    return b"".join(parts)
