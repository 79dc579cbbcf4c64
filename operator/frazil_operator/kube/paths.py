"""Where an object is on the API server."""

from __future__ import annotations

from typing import Final

_PLURALS: Final = {
    "ConfigMap": "configmaps",
    "Event": "events",
    "GenerationJob": "generationjobs",
    "Job": "jobs",
    "Lease": "leases",
    "Pod": "pods",
    "PodGroup": "podgroups",
    "Service": "services",
    "TrainingJob": "trainingjobs",
    "Workload": "workloads",
}


def plural_of(kind: str) -> str:
    """The resource of a kind. Raises KeyError for one that the operator has no business with."""
    return _PLURALS[kind]


def path_of(api_version: str, kind: str, namespace: str, name: str | None = None, *, status: bool = False) -> str:
    """`/apis/batch/v1/namespaces/team/jobs/ice-a0`."""
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    path = f"{root}/namespaces/{namespace}/{plural_of(kind)}"
    if name is not None:
        path += f"/{name}"
    return f"{path}/status" if status else path


def collection_of(api_version: str, kind: str, namespace: str | None) -> str:
    """`/apis/batch/v1/jobs`: a kind in one namespace, or in all."""
    if namespace is not None:
        return path_of(api_version, kind, namespace)
    root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
    return f"{root}/{plural_of(kind)}"
