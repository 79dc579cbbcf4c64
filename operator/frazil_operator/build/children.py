"""The children of a job: a ConfigMap with its spec, a headless Service for gangs, and Indexed Jobs.

Two shapes. *Shards*: one Job whose indices are the shards of a GenerationJob, as many at once as there are replicas; the Job
controller counts retries and keeps what is done. *Gang*: one Job whose indices are the nodes of one replica; any that fails
fails the Job, and the operator starts the next attempt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from frazil_jobs.api.common import ShardFailureRule
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import CONFIG, DATAERR
from frazil_operator.build.labels import (
    JOB_UID,
    LEAST,
    PARALLELISM,
    PROMPTS,
    QUEUE,
    RESTARTED,
    RESTARTS,
    SHARD,
    STEPS,
    TRY,
    Owner,
)
from frazil_operator.build.pod import COMPUTE, RENDEZVOUS_PORT, PodRequest, pod_template
from frazil_operator.build.volumes import JOB_FILE, Job
from frazil_operator.settings import Settings

MANY_INDICES: Final = 100_000
"""Beyond so many the API server asks for tighter limits of an Indexed Job."""
MOST_BEYOND: Final = 10_000
_ACTIONS: Final = {"FailJob": "FailJob", "FailShard": "FailIndex", "Count": "Count", "Ignore": "Ignore"}
_DISRUPTED: Final = [{"type": "DisruptionTarget", "status": "True"}]


@dataclass(frozen=True, kw_only=True)
class GangPlacement:
    """What a gang provider adds: objects made before the pods, and words in the pod template."""

    objects: tuple[Mapping[str, Any], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)


def config_map(job: Job, owner: Owner, *, attempt: int) -> dict[str, Any]:
    """The job as `fetch` reads it: its spec and identity, without status.

    Not immutable: what may change of a spec (replicas, steps) may have changed when it's applied again.
    """
    document = {
        "apiVersion": job.api_version,
        "kind": job.kind,
        "metadata": {"name": owner.name, "namespace": owner.namespace, "uid": owner.uid},
        "spec": job.spec.document(),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": owner.metadata(owner.child_name(attempt), attempt=attempt),
        "data": {JOB_FILE.rpartition("/")[2]: yaml.safe_dump(document, sort_keys=False, allow_unicode=True)},
    }


def service(owner: Owner, *, attempt: int) -> dict[str, Any]:
    """The headless Service by which the pods of a gang find each other, ready or not."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owner.metadata(owner.name, attempt=attempt),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_UID: owner.uid},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def companions(job: Job, owner: Owner, *, attempt: int) -> list[dict[str, Any]]:
    """What the pods of a child can't begin without: made before it."""
    found = [config_map(job, owner, attempt=attempt)]
    return [*found, service(owner, attempt=attempt)] if job.spec.workers.nodes_per_replica > 1 else found


def shards_job(
    job: GenerationJob,
    owner: Owner,
    *,
    attempt: int,
    pin: Mapping[str, Any],
    parallelism: int,
    settings: Settings,
) -> dict[str, Any]:
    """The Indexed Job whose indices are the shards."""
    policy = job.spec.failure_policy
    shards = int(pin["shards"])
    annotations = {PROMPTS: json.dumps(dict(pin), sort_keys=True), PARALLELISM: str(parallelism)}
    least = job.spec.workers.min_replicas
    if job.spec.scheduling.queue_name and least is not None and least < parallelism:  # Kueue takes no other
        annotations[LEAST] = str(least)
    name = owner.child_name(attempt)
    template = pod_template(
        PodRequest(
            job=job,
            owner=owner,
            attempt=attempt,
            config_map=name,
            settings=settings,
            prompts_sha256=str(pin["sha256"]),
        )
    )
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": shards,
        "parallelism": parallelism,
        "backoffLimitPerIndex": policy.retries_per_shard,
        "maxFailedIndexes": most_failed(policy.max_failed_shards, shards),
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": shard_failure_rules(policy.rules)},
        "template": template,
    }
    return _job(job, owner, name, attempt=attempt, spec=spec, annotations=annotations)


def gang_job(
    job: Job,
    owner: Owner,
    *,
    attempt: int,
    config_map: str,
    settings: Settings,
    pin: Mapping[str, Any] | None = None,
    shard: int | None = None,
    tries: int = 0,
    restarts: int = 0,
    restarted: str = "",
    placement: GangPlacement = GangPlacement(),
) -> dict[str, Any]:
    """The Indexed Job whose indices are the nodes of one replica; with `shard`, of the gang that makes one shard."""
    nodes = job.spec.workers.nodes_per_replica
    name = owner.child_name(attempt, shard)
    labels = {RESTARTS: str(restarts)}
    if shard is not None:
        labels |= {SHARD: str(shard), TRY: str(tries)}
    template = pod_template(
        PodRequest(
            job=job,
            owner=owner,
            attempt=attempt,
            config_map=config_map,
            settings=settings,
            prompts_sha256=str(pin["sha256"]) if pin else None,
            shard=shard,
            rendezvous=f"{name}-0.{owner.name}" if nodes > 1 else None,
            subdomain=owner.name if nodes > 1 else None,
            labels={**labels, **placement.labels},
            annotations=dict(placement.annotations),
            spec=dict(placement.spec),
        )
    )
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onPodConditions": _DISRUPTED}]},
        "template": template,
    }
    annotations = {PROMPTS: json.dumps(dict(pin), sort_keys=True)} if pin else {}
    if isinstance(job, TrainingJob):
        annotations[STEPS] = str(job.spec.steps)
    if restarted:
        annotations[RESTARTED] = restarted
    return _job(job, owner, name, attempt=attempt, spec=spec, annotations=annotations, labels=labels)


def _job(
    job: Job,
    owner: Owner,
    name: str,
    *,
    attempt: int,
    spec: dict[str, Any],
    annotations: dict[str, str],
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """An Indexed Job. With a queue it's born suspended, and the queue starts it."""
    scheduling = job.spec.scheduling
    metadata = owner.metadata(name, attempt=attempt)
    metadata["labels"] |= labels or {}
    if scheduling.queue_name:
        metadata["labels"][QUEUE] = scheduling.queue_name
        spec = {**spec, "suspend": True}
        if scheduling.topology_key:
            preferred = {"kueue.x-k8s.io/podset-preferred-topology": scheduling.topology_key}
            spec["template"]["metadata"].setdefault("annotations", {}).update(preferred)
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def most_failed(allowed: int | None, shards: int) -> int:
    """maxFailedIndexes: one more fails the Job. None in the spec: the first does."""
    most = allowed or 0
    return min(most, MOST_BEYOND) if shards > MANY_INDICES else min(most, shards)


def shard_failure_rules(rules: Sequence[ShardFailureRule]) -> list[dict[str, Any]]:
    """podFailurePolicy: the job's own rules, then disruptions for nothing, bad configuration and bad input at once.

    The job's own rules are about the GPU container. Frazil's codes count from any container: `fetch` finds most of what is
    wrong.
    """
    own = [_rule(rule) for rule in rules]
    return [
        *own,
        {"action": "Ignore", "onPodConditions": _DISRUPTED},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [CONFIG]}},
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [DATAERR]}},
    ]


def _rule(rule: ShardFailureRule) -> dict[str, Any]:
    action = _ACTIONS[rule.action]
    if rule.on_disruption:
        return {"action": action, "onPodConditions": _DISRUPTED}
    codes = sorted(set(rule.on_exit_codes or []))
    return {"action": action, "onExitCodes": {"containerName": COMPUTE, "operator": "In", "values": codes}}
