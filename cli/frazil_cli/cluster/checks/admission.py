"""Whether the cluster lets the pods of a job in: Pod Security, limits, webhooks."""

from __future__ import annotations

from typing import Final

from frazil_cli.cluster.client import Object
from frazil_cli.cluster.observed import Finding, Observed, Unknown, name_of

NAME: Final = "admission"
SECURITY: Final = "violates PodSecurity"
ENFORCE: Final = "pod-security.kubernetes.io/enforce"
_CREATION: Final = "FailedCreate"
_ROOT: Final = "runAsNonRoot"
_NOT_OURS: Final = ("exceeded quota", "failed quota")
"""Refusals that `quota` tells of."""


def check(observed: Observed) -> Finding:
    """Pod security refusing pods."""
    said = [str(event.get("message") or "") for event in observed.recent(_CREATION)]
    if not isinstance(observed.trial, Unknown) and observed.trial.accepted is False:
        said.insert(0, observed.trial.message)
    refused = [message for message in dict.fromkeys(said) if not any(words in message for words in _NOT_OURS)]
    by_security = [message for message in refused if SECURITY in message]
    if by_security:
        return Finding(
            NAME,
            "wrong",
            f"Pod Security of {observed.namespace!r} refuses pods",
            "Frazil's own pods meet `restricted`: look at what spec.workers.template or a webhook adds",
            tuple(by_security[:2]),
        )
    if refused:
        return Finding(
            NAME,
            "wrong",
            f"pods are refused in {observed.namespace!r}",
            "see who refuses them: a LimitRange, a webhook or a policy of the cluster",
            tuple(refused[:2]),
        )
    if rooted := [line for pod in _of(observed) for line in _rooted(pod)]:
        return Finding(
            NAME,
            "wrong",
            "an image wants to run as root, which its pod forbids",
            "use an image with a numeric non-root USER (workers.image), or runAsUser of the chart's values",
            tuple(rooted[:2]),
        )
    level = _level(observed)
    if isinstance(observed.trial, Unknown):
        return Finding(NAME, "ok" if level else "unknown", level or observed.trial.why)
    return Finding(NAME, "ok", f"a pod of a job is let in{f' ({level})' if level else ''}")


def _level(observed: Observed) -> str:
    if not isinstance(observed.namespace_object, dict):
        return ""
    level = (observed.namespace_object["metadata"].get("labels") or {}).get(ENFORCE)
    return f"the namespace enforces `{level}`" if level else "the namespace enforces no Pod Security level"


def _of(observed: Observed) -> list[Object]:
    return [] if isinstance(observed.pods, Unknown) else list(observed.pods)


def _rooted(pod: Object) -> list[str]:
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return [
        f"{name_of(pod)}: {waiting['message']}"
        for container in containers
        if _ROOT in str((waiting := (container.get("state") or {}).get("waiting") or {}).get("message") or "")
    ]
