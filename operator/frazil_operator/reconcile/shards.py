"""Shape one: a replica fits a pod. One Indexed Job whose indices are the shards; the Job controller retries and counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from frazil_jobs.api import conditions as c
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.base.exits import CONFIG
from frazil_operator.build.children import companions, shards_job
from frazil_operator.build.labels import LEAST, PARALLELISM, Owner
from frazil_operator.reconcile import children as kids
from frazil_operator.reconcile import ranges
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.plan import Object
from frazil_operator.settings import Settings

_BY_CONFIG: Final = f"failed with exit code {CONFIG} matching "
"""Of the words of Kubernetes' Job controller (matchPodFailurePolicy in its pkg/controller/job/pod_failure_policy.go):
"Container %s for pod %s/%s failed with exit code %v matching %v rule at index %d"."""


def make(draft: Draft, job: GenerationJob, owner: Owner, pin: Mapping[str, Any], settings: Settings) -> Object:
    """The ConfigMap and the Job, where there is none; the Job as it's asked for."""
    attempt = int(draft.fields.get("attempt", 0))
    draft.fields["attempt"] = attempt
    at_once = parallelism(job, pin)
    draft.applies += companions(job, owner, attempt=attempt)
    child = shards_job(job, owner, attempt=attempt, pin=pin, parallelism=at_once, settings=settings)
    draft.applies.append(child)
    return child


def parallelism(job: GenerationJob, pin: Mapping[str, Any]) -> int:
    """Pods at once: as many as there are replicas, and no more than there are shards."""
    return min(job.spec.workers.replicas, int(pin["shards"]))


def scale(draft: Draft, job: GenerationJob, child: Object, pin: Mapping[str, Any]) -> None:
    """Follow spec.workers.replicas. What was asked for last is on the child: where a queue admitted fewer, that stays, and
    where it may have it takes no other number until the Job is suspended again."""
    annotations = child["metadata"].get("annotations") or {}
    if LEAST in annotations and not kids.suspended(child):
        return
    wanted, asked = str(parallelism(job, pin)), annotations.get(PARALLELISM)
    if asked != wanted and not kids.ended(child):
        body = {"metadata": {"annotations": {PARALLELISM: wanted}}, "spec": {"parallelism": int(wanted)}}
        draft.patch(child, body)


def completed_of(child: Object) -> str:
    """Shards that are done."""
    return str((child.get("status") or {}).get("completedIndexes") or "")


def failed_of(child: Object) -> str:
    """Shards that have failed for good."""
    return str((child.get("status") or {}).get("failedIndexes") or "")


def judge(draft: Draft, job: GenerationJob, child: Object) -> bool:
    """Whether the shards are over, so that results can be recounted. Fails the job where its policy says so."""
    if kids.complete(child):
        return True
    why = kids.failed(child)
    if why is None:
        return False
    reason, message = str(why.get("reason", "")), str(why.get("message", ""))
    problem = kids.worst_failure(draft.observed.of("pod"))
    if reason == "PodFailurePolicy":
        if problem is not None and problem.exit_code == CONFIG:
            draft.fail(c.BAD_CONFIGURATION, kids.told(problem, message))
        elif _BY_CONFIG in message:  # the pod that said more is gone
            draft.fail(c.BAD_CONFIGURATION, message)
        else:
            draft.fail(c.FAILURE_RULE, kids.told(problem, message))
        return False
    failed = ranges.count(failed_of(child))
    allowed = job.spec.failure_policy.max_failed_shards or 0
    if reason == "FailedIndexes" and failed <= allowed:
        return True
    text = f"{failed} of {child['spec'].get('completions')} shards have failed, {allowed} may: {failed_of(child)[:100]}"
    draft.fail(c.MAX_FAILED_SHARDS, f"{text}; {kids.told(problem, message)}")
    return False
