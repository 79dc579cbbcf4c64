"""Volcano: `scheduling.volcano.sh/v1beta1` PodGroup, an annotation of the pod, and Volcano's scheduler."""

from __future__ import annotations

from frazil_operator.build.children import GangPlacement
from frazil_operator.build.labels import Owner
from frazil_operator.build.volumes import Job

API_VERSION = "scheduling.volcano.sh/v1beta1"
SCHEDULER = "volcano"


def place(job: Job, owner: Owner, *, name: str, attempt: int) -> GangPlacement:
    """A PodGroup of as many members as the gang has pods."""
    workers = job.spec.workers
    spec: dict[str, object] = {
        "minMember": workers.nodes_per_replica,
        "minResources": {workers.accelerator: str(workers.nodes_per_replica * workers.gpus_per_node)},
    }
    if job.spec.scheduling.priority_class_name:
        spec["priorityClassName"] = job.spec.scheduling.priority_class_name
    group = {
        "apiVersion": API_VERSION,
        "kind": "PodGroup",
        "metadata": owner.metadata(name, attempt=attempt),
        "spec": spec,
    }
    scheduler = {} if workers.template.scheduler_name else {"schedulerName": SCHEDULER}
    return GangPlacement(objects=(group,), annotations={"scheduling.k8s.io/group-name": name}, spec=scheduler)
