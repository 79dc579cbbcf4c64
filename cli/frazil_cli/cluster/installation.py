"""Frazil as it's installed on a cluster: where, and with which settings. Found by the labels of the chart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import yaml

from frazil_cli.cluster.client import Cluster, Forbidden, NotFound, Object, path_of
from frazil_jobs.base.exits import BadConfiguration
from frazil_operator.settings import Settings, parse_settings

OPERATOR: Final = "app.kubernetes.io/name=frazil,app.kubernetes.io/component=operator"
USUAL_NAMESPACES: Final = ("frazil-system", "frazil")
"""Where to look for who may not list objects of the whole cluster."""
_KEY: Final = "operator.yaml"


@dataclass(frozen=True)
class Installation:
    """One release of the chart."""

    namespace: str
    settings: Settings | None
    problem: str = ""
    """Why its settings can't be known."""


def find_installation(cluster: Cluster, system: str | None = None) -> Installation | None:
    """The release that acts on the namespace, or any; with `system`, the one of that namespace. None: there is none to see.

    Raises Forbidden when it can't be told.
    """
    found = [_read(one) for one in labelled(cluster, "v1", "configmaps", OPERATOR, system)]
    acting = [one for one in found if one.settings and _acts_on(one.settings, cluster.namespace)]
    return next(iter([*acting, *found]), None)


def _read(config_map: Object) -> Installation:
    namespace = str(config_map["metadata"]["namespace"])
    try:
        document = yaml.safe_load((config_map.get("data") or {}).get(_KEY, ""))
        where = f"the ConfigMap {config_map['metadata']['name']}"
        return Installation(namespace, parse_settings(document, where=where))
    except (yaml.YAMLError, BadConfiguration) as error:
        return Installation(namespace, None, str(error).splitlines()[0])


def _acts_on(settings: Settings, namespace: str) -> bool:
    return not settings.namespaces or namespace in settings.namespaces


def labelled(cluster: Cluster, version: str, plural: str, selector: str, system: str | None) -> list[Object]:
    """Objects with labels, of one namespace or of all. Raises Forbidden when none of the places may be looked at."""
    if system is not None:
        return cluster.items(path_of(version, plural, namespace=system), labelSelector=selector)
    try:
        return cluster.items(path_of(version, plural), labelSelector=selector)
    except Forbidden as error:
        refused = error
    allowed = False
    for namespace in dict.fromkeys((*USUAL_NAMESPACES, cluster.namespace)):
        try:
            if found := cluster.items(path_of(version, plural, namespace=namespace), labelSelector=selector):
                return found
            allowed = allowed or namespace in USUAL_NAMESPACES
        except (Forbidden, NotFound):
            continue
    if allowed:
        return []
    raise refused
