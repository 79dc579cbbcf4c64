"""The objects that the operator would create for a job: decided by its own reconcile, from settings and prompts alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from frazil_cli.cluster.client import Object
from frazil_jobs.api import conditions as c
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import Job
from frazil_operator.gang.placement import NONE, Provider
from frazil_operator.reconcile.plan import GangSupport, Inspection, Observed
from frazil_operator.reconcile.reconcile import reconcile
from frazil_operator.settings import Destination, Settings

UNKNOWN_UID: Final = "00000000-0000-0000-0000-000000000000"
"""The API server gives the real one."""


@dataclass(frozen=True)
class Manifests:
    """What would be created, in order; nothing of it for a job that the operator refuses."""

    children: tuple[Object, ...]
    notes: tuple[str, ...] = ()
    refusal: str | None = None


def manifests(job: Job, *, pin: Mapping[str, Any] | None, settings: Settings, provider: Provider = NONE) -> Manifests:
    """The first children of `job`. `pin` None, of a GenerationJob: the prompts can't be read here; shown as for one shard,
    and said. A TrainingJob has none."""
    notes = []
    if job.spec.suspend:
        notes.append("spec.suspend is true: they are created when it becomes false")
    inspection = None
    if isinstance(job, GenerationJob):
        if pin is None:
            notes.append("the prompts can't be read here: shown as for one shard; the operator counts them first")
        pin = pin or {"sha256": "0" * 64, "count": 1, "shards": 1, "per_shard": 1, "format": "inline", "size": 0}
        inspection = Inspection(pin=pin)
    notes += _paths(job)
    body = job.document()
    body["metadata"]["uid"] = UNKNOWN_UID
    body["spec"]["suspend"] = False
    observed = Observed(job=body, inspection=inspection, gang=GangSupport(provider))
    plan = reconcile(observed, datetime.now(UTC), settings)
    if isinstance(job, GenerationJob) and pin is not None and job.spec.workers.nodes_per_replica > 1:
        left = int(pin["shards"]) - job.spec.workers.replicas
        if left > 0:
            notes.append(f"{left} more gangs follow, one when another ends: a Job (and its PodGroup) for each shard")
    return Manifests(tuple(map(dict, (*plan.ensure, *plan.apply))), tuple(notes), _refusal(plan.status or {}))


def _paths(job: Job) -> list[str]:
    """Files of this machine are not those of a pod."""
    uris = {"spec.model.uri": job.spec.model.uri}
    if isinstance(job, GenerationJob):
        uris["spec.prompts.uri"] = job.spec.prompts.uri or "s3://"
    else:
        uris["spec.dataset.uri"] = job.spec.dataset.uri
    local = [field for field, uri in uris.items() if "://" not in uri or uri.startswith("file://")]
    mounted = job.spec.workers.template.volume_mounts
    if not local or mounted:
        return []
    return [f"{' and '.join(local)}: a path is looked for in the pod, not here; use s3://, hf:// or pvc://"]


def settings_as_default(job: Job) -> Settings:
    """Settings as the chart has them by default, with a destination of the name that the job asks for."""
    name = job.spec.output.destination
    return Settings(destinations=[Destination(name=name, uri="s3://frazil/results")])


def pod_of(child: Object) -> Object | None:
    """A pod as a Job would make it; None of other kinds."""
    if child["kind"] != "Job":
        return None
    template, meta = child["spec"]["template"], child["metadata"]
    metadata = {**template["metadata"], "generateName": f"{meta['name']}-", "namespace": meta["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _refusal(status: Mapping[str, Any]) -> str | None:
    for condition in status.get("conditions") or ():
        if condition["type"] == c.FAILED and condition["status"] == "True":
            return str(condition["message"])
    return None
