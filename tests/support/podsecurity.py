"""Pod Security `restricted`, read from its specification: what of a pod it would refuse. The API server of tests/cluster
decides of the same for real; this one says it of anything that is rendered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def problems(spec: Mapping[str, Any]) -> list[str]:
    """Why a pod's spec is not `restricted`; empty when it is."""
    found = [f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC", "hostUsers") if spec.get(name)]
    pod = spec.get("securityContext") or {}
    for volume in spec.get("volumes") or ():
        kinds = set(volume) - {"name"}
        if not kinds <= _VOLUMES:
            found.append(f"volume {volume['name']} is a {', '.join(kinds)}")
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        found += [f"{container['name']}: {problem}" for problem in _container(container, pod)]
    return found


def _container(container: Mapping[str, Any], pod: Mapping[str, Any]) -> list[str]:
    own = container.get("securityContext") or {}
    both = {**pod, **own}
    found = []
    if own.get("privileged"):
        found.append("is privileged")
    if own.get("allowPrivilegeEscalation") is not False:
        found.append("may escalate privileges")
    if not both.get("runAsNonRoot"):
        found.append("may run as root")
    if both.get("runAsUser") == 0:
        found.append("runs as root")
    if (both.get("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.append("has no seccomp profile")
    capabilities = own.get("capabilities") or {}
    if "ALL" not in capabilities.get("drop", ()):
        found.append("keeps capabilities")
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        found.append("adds capabilities")
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        found.append("takes a port of the host")
    return found
