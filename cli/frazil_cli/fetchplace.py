"""Where `frazil fetch` takes results from: the store that is named, the one of `frazil run`, or a cluster's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from frazil_cli.cluster.access import Access, is_there
from frazil_cli.locating import Found, NoSuchJob, locate, manifest_at, split_address
from frazil_cli.prepare import store_config
from frazil_jobs.base.exits import FrazilError
from frazil_jobs.stores import ObjectStore, open_store

PLUGIN = "kubectl-frazil"
NAMESPACE = "default"
"""Of jobs that run here."""
KIND_WORDS = frozenset({"generationjob", "generationjobs", "gj", "trainingjob", "trainingjobs", "tj"})


def as_plugin() -> bool:
    """Whether kubectl called: then the cluster is meant."""
    return Path(sys.argv[0]).name == PLUGIN


@dataclass(frozen=True)
class Asked:
    """What a person said."""

    what: str
    store: str | None
    endpoint: str | None
    access: Access
    plugin: bool = field(default_factory=as_plugin)


@contextmanager
def place(asked: Asked) -> Iterator[tuple[ObjectStore, Found]]:
    """The store, and the results that are meant in it, while the context lasts. Raises FrazilError.

    A store that is named is the only one asked. So is the cluster, when one is named or kubectl called. Otherwise a name
    that isn't in the results here is looked for on the cluster, if there is one.
    """
    root, what = split_address(asked.what)
    stated = root or asked.store or asked.endpoint
    if stated is None and (asked.access.named or asked.plugin):
        with _on_cluster(asked) as found:
            yield found
        return
    config = store_config(root or asked.store, asked.endpoint)
    source = open_store(config)
    try:
        here = locate(source, config, what, namespace=asked.access.namespace or NAMESPACE)
    except NoSuchJob as error:
        if stated is not None or not is_name(what) or not is_there():
            raise
        missed = error
    else:
        yield source, here
        return
    with ExitStack() as stack:
        try:
            found = stack.enter_context(_on_cluster(asked))
        except FrazilError as error:
            message = f"{missed.message}; on the cluster, {error.message}"
            raise type(error)(message, field=error.field, remedy=error.remedy) from None
        yield found


def is_name(what: str) -> bool:
    """Whether it names a job, and no prefix (`namespace/name-uid`) of a store."""
    head, separator, _ = what.partition("/")
    return not separator or head.lower().partition(".")[0] in KIND_WORDS


@contextmanager
def _on_cluster(asked: Asked) -> Iterator[tuple[ObjectStore, Found]]:
    from frazil_cli.cluster.client import Cluster
    from frazil_cli.cluster.jobs import find_job
    from frazil_cli.cluster.results import reading

    cluster = Cluster.connect(asked.access)
    job = find_job(cluster, asked.what)
    with reading(cluster, job) as one:
        source = open_store(one.store)
        yield source, Found(one.prefix, manifest_at(source, one.prefix))
