"""The job that a person names, on the cluster."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from frazil_cli.cluster.client import JOB_PLURALS, Cluster, NotFound, Object, job_path
from frazil_jobs.api.base import API_VERSION
from frazil_jobs.base.exits import BadConfiguration

_SHORT: Final = {"gj": "GenerationJob", "tj": "TrainingJob"}
_SHOWN: Final = 5


def split_name(what: str) -> tuple[tuple[str, ...], str]:
    """Kinds and name of `ice`, `generationjob/ice`, `gj/ice`. Raises BadConfiguration."""
    kind, separator, name = what.rpartition("/")
    if not separator:
        return tuple(JOB_PLURALS), what
    word = kind.lower().partition(".")[0]
    for known, plural in JOB_PLURALS.items():
        if word in (known.lower(), plural) or _SHORT.get(word) == known:
            return (known,), name
    raise BadConfiguration(f"{kind!r} is no kind of job", remedy="name generationjob/NAME or trainingjob/NAME")


def find_job(cluster: Cluster, what: str) -> Object:
    """The job that `what` names. Raises NotFound with near names; BadConfiguration when two kinds have it."""
    kinds, name = split_name(what)
    found = [job for kind in kinds if (job := cluster.find(job_path(kind, cluster.namespace, name))) is not None]
    if len(found) > 1:
        raise BadConfiguration(
            f"both a GenerationJob and a TrainingJob are called {name!r}",
            remedy=f"name generationjob/{name} or trainingjob/{name}",
        )
    if found:
        return found[0]
    require_frazil(cluster)
    raise no_such_job(cluster, name, kinds)


def require_frazil(cluster: Cluster) -> None:
    """Raise NotFound where the chart isn't installed."""
    if not cluster.served(API_VERSION):
        raise NotFound(
            f"the cluster of the context {cluster.context!r} does not know Frazil's jobs",
            field="--context",
            remedy="install the chart (helm install frazil charts/), or choose another --context",
        )


def no_such_job(cluster: Cluster, name: str, kinds: Iterable[str] = JOB_PLURALS) -> NotFound:
    """The error, with the names that are nearest."""
    names = [str(job["metadata"]["name"]) for kind in kinds for job in all_jobs(cluster, kind)]
    near = difflib.get_close_matches(name, names, n=_SHOWN, cutoff=0.5) or names[:_SHOWN]
    where = f"the namespace {cluster.namespace!r} of {cluster.context!r}"
    return NotFound(
        f"there is no job {name!r} in {where}",
        remedy=f"did you mean {' or '.join(near)}?" if near else "there is none at all; is it another one (-n)?",
    )


def all_jobs(cluster: Cluster, kind: str) -> list[Object]:
    """Jobs of a kind in the namespace; none when the kind isn't served. Lists carry no kind: it's put back."""
    try:
        found = cluster.items(job_path(kind, cluster.namespace))
    except NotFound:
        return []
    return [{**job, "apiVersion": API_VERSION, "kind": kind} for job in found]
