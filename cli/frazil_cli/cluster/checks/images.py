"""Whether images are pulled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from frazil_cli.cluster.client import Object
from frazil_cli.cluster.observed import Finding, Observed, Unknown, name_of

NAME: Final = "images"
REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)


def check(observed: Observed) -> Finding:
    """Image pull failing, of jobs here and of Frazil's own pods."""
    pods = [pod for place in (observed.pods, observed.system_pods) if not isinstance(place, Unknown) for pod in place]
    failing = list(dict.fromkeys(line for pod in pods for line in _failing(pod)))
    if failing:
        secrets = observed.settings.images.pull_secrets if observed.settings else []
        named = f" (now: {', '.join(secrets)}, in {observed.namespace!r})" if secrets else ""
        return Finding(
            NAME,
            "wrong",
            "images can't be pulled",
            f"correct `images` of the chart's values or workers.image of the job, or give images.pullSecrets{named}",
            tuple(failing[:4]),
        )
    if isinstance(observed.pods, Unknown):
        return Finding(NAME, "unknown", observed.pods.why)
    return Finding(NAME, "ok", f"none of {len(pods)} pods waits for one" if pods else "there are no pods to look at")


def _failing(pod: Object) -> Iterator[str]:
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in REASONS:
            words = str(waiting.get("message") or "").strip()
            yield f"{name_of(pod)}: {container.get('image')}: {waiting['reason']}{f': {words}' if words else ''}"
