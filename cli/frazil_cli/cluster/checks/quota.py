"""Whether a quota of the namespace, or a queue that isn't there, holds jobs back."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from frazil_cli.cluster.client import Object
from frazil_cli.cluster.observed import Finding, Observed, Unknown, condition, name_of
from frazil_jobs.api.quantities import parse_quantity

NAME: Final = "quota"
_WORDS: Final = ("exceeded quota", "failed quota")


def check(observed: Observed) -> Finding:
    """Quota exceeded; a queue without Kueue."""
    queued = [job for job in observed.at_work if (job["spec"].get("scheduling") or {}).get("queueName")]
    if queued and not observed.kueue:
        queue = queued[0]["spec"]["scheduling"]["queueName"]
        return Finding(
            NAME,
            "wrong",
            f"{name_of(queued[0])} waits for the queue {queue!r}, and the cluster has no Kueue",
            "install Kueue (https://kueue.sigs.k8s.io), or take scheduling.queueName out of the job",
        )
    refused = [str(event["message"]) for event in observed.recent() if _about_quota(str(event.get("message") or ""))]
    trial = observed.trial
    if not isinstance(trial, Unknown) and trial.accepted is False and _about_quota(trial.message):
        refused.insert(0, trial.message)
    if refused:
        return Finding(
            NAME,
            "wrong",
            f"a quota of {observed.namespace!r} refuses pods",
            f"wait for other jobs, or ask for more: kubectl -n {observed.namespace} describe resourcequota",
            tuple(dict.fromkeys(refused))[:3],
        )
    waiting = tuple(
        f"{name_of(job)}: {one.get('message') or one.get('reason')}"
        for job in queued
        if (one := condition(job, "QuotaReserved")).get("status") == "False"
    )
    if isinstance(observed.quotas, Unknown):
        return Finding(NAME, "unknown", observed.quotas.why, details=waiting)
    full = [line for quota in observed.quotas for line in exhausted(quota)]
    if full:
        return Finding(NAME, "ok", f"used up, so that more has to wait: {', '.join(full)}", details=waiting)
    said = f"{len(observed.quotas)} of the namespace, none used up" if observed.quotas else "the namespace has none"
    return Finding(NAME, "ok", said, details=waiting)


def exhausted(quota: Object) -> list[str]:
    """`pods 4/4` for each resource of which nothing is left."""
    status = quota.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    return [
        f"{resource} {used[resource]}/{limit}"
        for resource, limit in hard.items()
        if resource in used and (most := quantity(limit)) is not None and (now := quantity(used[resource])) is not None
        if now >= most
    ]


def quantity(text: object) -> Decimal | None:
    """A quantity of Kubernetes (500m, 8Gi, 3) as a number; None when it's none."""
    try:
        return parse_quantity(str(text))
    except ValueError:
        return None


def _about_quota(message: str) -> bool:
    return any(words in message for words in _WORDS)
