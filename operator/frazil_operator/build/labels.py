"""Labels and names of the objects that belong to a job. Objects are found by the job's uid, never by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from frazil_jobs.api.base import API_VERSION, GROUP

MANAGER: Final = "frazil-operator"
"""Field manager of everything that the operator writes."""
MANAGED: Final = f"{GROUP}/managed"
KIND: Final = f"{GROUP}/kind"
JOB_NAME: Final = f"{GROUP}/job-name"
JOB_UID: Final = f"{GROUP}/job-uid"
ATTEMPT: Final = f"{GROUP}/attempt"
SHARD: Final = f"{GROUP}/shard"
"""On a gang that makes one shard."""
TRY: Final = f"{GROUP}/try"
"""On a gang that makes one shard: charged tries of that shard before this one."""
RESTARTS: Final = f"{GROUP}/restarts"
"""On a gang: restarts of the whole job that were charged before it was made, so that none is forgotten."""
PARALLELISM: Final = f"{GROUP}/parallelism"
"""Annotation: how many pods at once were asked for last. A queue may have admitted fewer."""
PROMPTS: Final = f"{GROUP}/prompts"
"""Annotation: the pin of the prompts that a child was made for."""
STEPS: Final = f"{GROUP}/steps"
"""Annotation of a TrainingJob's gang: the steps that it was made for. The job may want more by now."""
RESTARTED: Final = f"{GROUP}/restarted"
"""Annotation of a gang that replaces another: the reason and the words of it, for a status that was not written."""
OUTPUTS_FINALIZER: Final = f"{GROUP}/outputs"
"""Only with output.whenDeleted: Delete."""
QUEUE: Final = "kueue.x-k8s.io/queue-name"
LEAST: Final = "kueue.x-k8s.io/job-min-parallelism"
"""Annotation: how few pods the queue may admit. It then refuses any change of how many run."""
QUEUED_JOB: Final = "kueue.x-k8s.io/job-uid"
"""On a Workload: the uid of the Job (batch/v1) that it's for."""
INDEX: Final = "batch.kubernetes.io/job-completion-index"

_COMPONENTS: Final = {"GenerationJob": "generation", "TrainingJob": "training"}


@dataclass(frozen=True)
class Owner:
    """The job that objects are made for."""

    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> Owner:
        """The owner that a job object is."""
        meta = job["metadata"]
        return cls(kind=job["kind"], namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])

    def labels(self, *, attempt: int) -> dict[str, str]:
        """Labels of every child and of its pods."""
        return {
            "app.kubernetes.io/name": "frazil",
            "app.kubernetes.io/managed-by": MANAGER,
            "app.kubernetes.io/component": _COMPONENTS[self.kind],
            MANAGED: "true",
            KIND: self.kind,
            JOB_NAME: self.name,
            JOB_UID: self.uid,
            ATTEMPT: str(attempt),
        }

    @property
    def selector(self) -> str:
        """Label selector of the job's pods."""
        return f"{JOB_UID}={self.uid}"

    def reference(self) -> dict[str, Any]:
        """The owner reference by which a child ends with its job."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }

    def child_name(self, attempt: int, shard: int | None = None) -> str:
        """`<job>-a<attempt>`, or `<job>-a<attempt>-<shard>` for the gang of one shard."""
        name = f"{self.name}-a{attempt}"
        return name if shard is None else f"{name}-{shard}"

    def metadata(self, name: str, *, attempt: int, **more: Any) -> dict[str, Any]:
        """Metadata of a child."""
        return {
            "name": name,
            "namespace": self.namespace,
            "labels": self.labels(attempt=attempt),
            "ownerReferences": [self.reference()],
            **more,
        }


def watched_label(kind: str) -> tuple[str, str | None]:
    """What of a kind of children is watched: a label, and its value if not any will do."""
    return (QUEUED_JOB, None) if kind == "Workload" else (MANAGED, "true")


def attempt_of(child: Mapping[str, Any]) -> int:
    """The attempt that a child belongs to."""
    return int(child["metadata"].get("labels", {}).get(ATTEMPT, "0"))


def shard_of(child: Mapping[str, Any]) -> int | None:
    """The shard that a gang makes, if it's the gang of one."""
    text = child["metadata"].get("labels", {}).get(SHARD)
    return None if text is None else int(text)
