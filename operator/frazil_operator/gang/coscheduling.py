"""The coscheduling plugin: `scheduling.x-k8s.io/v1alpha1` PodGroup and a label of the pod.

Which scheduler runs the plugin is the administrator's choice: `workers.template.schedulerName`, or the cluster's default.
"""

from __future__ import annotations

from frazil_operator.build.children import GangPlacement
from frazil_operator.build.labels import Owner
from frazil_operator.build.volumes import Job

API_VERSION = "scheduling.x-k8s.io/v1alpha1"
WAIT_SECONDS = 120


def place(job: Job, owner: Owner, *, name: str, attempt: int) -> GangPlacement:
    """A PodGroup of as many members as the gang has pods."""
    workers = job.spec.workers
    group = {
        "apiVersion": API_VERSION,
        "kind": "PodGroup",
        "metadata": owner.metadata(name, attempt=attempt),
        "spec": {
            "minMember": workers.nodes_per_replica,
            "minResources": {workers.accelerator: str(workers.nodes_per_replica * workers.gpus_per_node)},
            "scheduleTimeoutSeconds": WAIT_SECONDS,
        },
    }
    return GangPlacement(objects=(group,), labels={"scheduling.x-k8s.io/pod-group": name})
