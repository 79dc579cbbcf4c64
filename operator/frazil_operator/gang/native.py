"""Kubernetes' own gang scheduling: `scheduling.k8s.io/v1beta1` PodGroup (1.37, feature gate GenericWorkload).

A pod that names a PodGroup stays unscheduled until the group is there, so the order of creation is safe.
"""

from __future__ import annotations

from frazil_operator.build.children import GangPlacement
from frazil_operator.build.labels import Owner
from frazil_operator.build.volumes import Job

API_VERSION = "scheduling.k8s.io/v1beta1"


def place(job: Job, owner: Owner, *, name: str, attempt: int) -> GangPlacement:
    """A PodGroup that is bound when all pods of the gang fit, and the pod field that names it."""
    spec: dict[str, object] = {"schedulingPolicy": {"gang": {"minCount": job.spec.workers.nodes_per_replica}}}
    if key := job.spec.scheduling.topology_key:
        spec["schedulingConstraints"] = {"topology": [{"key": key}]}
    if job.spec.scheduling.priority_class_name:
        spec["priorityClassName"] = job.spec.scheduling.priority_class_name
    group = {
        "apiVersion": API_VERSION,
        "kind": "PodGroup",
        "metadata": owner.metadata(name, attempt=attempt),
        "spec": spec,
    }
    return GangPlacement(objects=(group,), spec={"schedulingGroup": {"podGroupName": name}})
