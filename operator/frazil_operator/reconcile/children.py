"""What children say: which Job is at what, why pods wait, why one failed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from frazil_jobs.api import conditions as c
from frazil_jobs.base.exits import CONFIG, DATAERR
from frazil_operator.build.labels import INDEX, PROMPTS
from frazil_operator.build.pod import COMPUTE
from frazil_operator.reconcile.plan import Object
from frazil_operator.reconcile.times import time_of

_PULL: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_NOT_MADE: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_LONGEST_MESSAGE: Final = 700


def condition(thing: Object, kind: str) -> Mapping[str, Any] | None:
    """The condition of a type that is True, of a Job or a pod."""
    for one in (thing.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind and one.get("status") == "True":
            return dict(one)
    return None


def failed(job: Object) -> Mapping[str, Any] | None:
    """Why a Job has failed, or is about to: FailureTarget comes before its last pods have ended."""
    return condition(job, "Failed") or condition(job, "FailureTarget")


def complete(job: Object) -> bool:
    """Whether all of a Job's indices are done."""
    return condition(job, "Complete") is not None


def ended(job: Object) -> bool:
    """Whether a Job will start no pod any more."""
    return complete(job) or failed(job) is not None


def active(job: Object) -> int:
    """Pods of a Job that have not ended."""
    return int((job.get("status") or {}).get("active") or 0)


def ready(job: Object) -> int:
    """Pods of a Job that are ready."""
    return int((job.get("status") or {}).get("ready") or 0)


def succeeded(job: Object) -> int:
    """Pods of a Job that ended well."""
    return int((job.get("status") or {}).get("succeeded") or 0)


def failures(job: Object) -> int:
    """Pods of a Job that ended otherwise."""
    return int((job.get("status") or {}).get("failed") or 0)


def suspended(job: Object) -> bool:
    """Whether a Job is held back."""
    return bool(job["spec"].get("suspend"))


def pin_of(job: Object) -> Mapping[str, Any] | None:
    """The pin of the prompts that a Job was made for."""
    text = (job["metadata"].get("annotations") or {}).get(PROMPTS)
    return dict(json.loads(text)) if text else None


def deleted(thing: Object) -> bool:
    """Whether it's on its way out."""
    return bool(thing["metadata"].get("deletionTimestamp"))


def pod_ended(pod: Object) -> bool:
    """Whether all containers of a pod have ended, as far as anybody can tell."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def idle_since(pod: Object) -> datetime | None:
    """Since when a pod has been on its node, if none of its containers has begun."""
    begun = any({"running", "terminated"} & (one.get("state") or {}).keys() for one in _statuses(pod))
    if begun or deleted(pod) or pod_ended(pod):
        return None
    return time_of((condition(pod, "PodScheduled") or {}).get("lastTransitionTime"))


class Trouble(NamedTuple):
    """Why a pod doesn't start."""

    reason: str
    """Of the condition PodsReady."""
    message: str


def trouble(pod: Object) -> Trouble | None:
    """What keeps a pod from starting, if the kubelet or the scheduler says it."""
    for container in _statuses(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        said = f"{container.get('name')}: {waiting.get('message') or reason}"
        if reason in _PULL:
            return Trouble(c.IMAGE_PULL, f"{container.get('image')}: {waiting.get('message') or reason}")
        if reason in _NOT_MADE:
            return Trouble(c.CONTAINER_NOT_MADE, said)
    for one in (pod.get("status") or {}).get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False" and one.get("reason") == "Unschedulable":
            return Trouble(c.UNSCHEDULABLE, str(one.get("message", "")))
    return None


class Failure(NamedTuple):
    """How a pod failed."""

    exit_code: int | None
    container: str
    message: str
    disrupted: bool


def failure(pod: Object) -> Failure | None:
    """Why a pod failed; None for one that has not."""
    if (pod.get("status") or {}).get("phase") != "Failed":
        return None
    disrupted = condition(pod, "DisruptionTarget")
    ends = [(name, end) for name, end in _ends(pod) if end.get("exitCode")]
    # `fetch` ends before the others start, and `upload` is stopped after them: what the job says comes first.
    ends.sort(key=lambda one: (one[0] == "upload", one[0] != COMPUTE))
    if not ends:
        said = str((disrupted or {}).get("message") or (pod.get("status") or {}).get("message") or "the pod failed")
        return Failure(None, "", said, disrupted is not None)
    name, end = ends[0]
    message = telling(str(end.get("message") or end.get("reason") or ""))
    return Failure(int(end["exitCode"]), name, message, disrupted is not None)


def telling(text: str) -> str:
    """The part of a container's last words that tells a person what was wrong: the last `error` of its JSON log, or the
    last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("error"):
            return str(entry["error"])[:_LONGEST_MESSAGE]
    return lines[-1][:_LONGEST_MESSAGE] if lines else ""


def worst_failure(pods: tuple[Object, ...]) -> Failure | None:
    """The failure that says most: bad configuration, bad input, then any with a message, newest first."""
    found = [(pod, one) for pod in pods if (one := failure(pod)) is not None]
    rank = {CONFIG: 0, DATAERR: 1}

    def order(pair: tuple[Object, Failure]) -> tuple[int, int, float]:
        pod, one = pair
        made = time_of(pod["metadata"].get("creationTimestamp"))
        return (rank.get(one.exit_code or -1, 2), 0 if one.message else 1, -(made.timestamp() if made else 0.0))

    return min(found, key=order)[1] if found else None


def told(problem: Failure | None, fallback: str) -> str:
    """A failure in words."""
    if problem is None:
        return fallback
    where = f"{problem.container} ended with exit code {problem.exit_code}" if problem.container else "a pod failed"
    return f"{where}: {problem.message}" if problem.message else where


def overdue_in(pod: Object, now: datetime, *, after: float) -> float | None:
    """Seconds until a pod that is being deleted should have been gone for `after` seconds; None for one that is not."""
    due = time_of(pod["metadata"].get("deletionTimestamp"))
    return None if due is None else (due + timedelta(seconds=after) - now).total_seconds()


def index_of(pod: Object) -> int:
    """The completion index of a pod."""
    meta = pod["metadata"]
    text = (meta.get("annotations") or {}).get(INDEX) or (meta.get("labels") or {}).get(INDEX) or "0"
    return int(text)


def owned_by(pod: Object, job: Object) -> bool:
    """Whether a pod was made for a Job."""
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == job["metadata"]["uid"] for owner in owners)


def _statuses(pod: Object) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(kind) or ()


def _ends(pod: Object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for container in _statuses(pod):
        for state in ("state", "lastState"):
            end = (container.get(state) or {}).get("terminated")
            if end:
                yield str(container.get("name")), end
                break
