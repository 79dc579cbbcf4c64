"""Whether the operator runs, leads, and acts on this namespace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from frazil_cli.cluster.client import Object
from frazil_cli.cluster.observed import Finding, Observed, Unknown, condition, name_of

NAME: Final = "operator"
LATE: Final = 3.0
"""Lease durations after which a holder is certainly not at work."""


def check(observed: Observed) -> Finding:
    """Operator down: Deployment, Lease, and the namespaces it acts on."""
    if isinstance(observed.system, Unknown):
        return Finding(NAME, "unknown", observed.system.why)
    if observed.system is None:
        return Finding(
            NAME,
            "wrong",
            "there is no operator on this cluster",
            "install the chart: helm install frazil charts/ -n frazil-system --create-namespace",
        )
    if (down := _down(observed, observed.system)) is not None:
        return down
    if (idle := _idle(observed, observed.system)) is not None:
        return idle
    namespaces = observed.settings.namespaces if observed.settings else []
    if namespaces and observed.namespace not in namespaces:
        return Finding(
            NAME,
            "wrong",
            f"the operator does not act on {observed.namespace!r}: only on {', '.join(namespaces)}",
            f"add {observed.namespace!r} to `namespaces` of the chart's values, or use one of them (-n)",
        )
    if observed.settings_problem:
        return Finding(NAME, "wrong", observed.settings_problem, "correct the chart's values and upgrade the release")
    return Finding(NAME, "ok", _well(observed))


def component(observed: Observed, name: str) -> Object | None:
    """The Deployment of a component, if it's to be seen."""
    if isinstance(observed.deployments, Unknown):
        return None
    label = "app.kubernetes.io/component"
    return next((one for one in observed.deployments if one["metadata"]["labels"].get(label) == name), None)


def unavailable(observed: Observed, deployment: Object) -> list[str] | None:
    """Why a Deployment has no pod that is ready, in the words of its pods; None when it has one, or wants none."""
    status = deployment.get("status") or {}
    if int(status.get("availableReplicas") or 0) > 0:
        return None
    said = []
    if isinstance(observed.system_pods, tuple):
        labels = deployment["spec"]["selector"]["matchLabels"].items()
        for pod in observed.system_pods:
            if labels <= (pod["metadata"].get("labels") or {}).items():
                said += trouble_of(pod)
    if not said:
        for kind in ("ReplicaFailure", "Progressing", "Available"):
            one = condition(deployment, kind)
            bad = one.get("status") == ("True" if kind == "ReplicaFailure" else "False")
            if bad and one.get("message"):
                said.append(str(one["message"]))
                break
    return said or ["no pod of it is ready"]


def trouble_of(pod: Object) -> list[str]:
    """What keeps a pod from running."""
    found = []
    status = pod.get("status") or {}
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            last = ((container.get("lastState") or {}).get("terminated") or {}).get("message") or ""
            words = str(last).strip().splitlines()[-1:] or [str(waiting.get("message") or "")]
            found.append(f"{name_of(pod)}, {container['name']}: {waiting['reason']} {words[0]}".strip())
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        found.append(f"{name_of(pod)} has no node: {scheduled.get('message', '')}")
    return found


def _down(observed: Observed, system: str) -> Finding | None:
    deployment = component(observed, "operator")
    if deployment is None:
        return None
    if int(deployment["spec"].get("replicas", 1)) == 0:
        return Finding(
            NAME,
            "wrong",
            "the operator is scaled to 0",
            f"kubectl -n {system} scale deployment/{name_of(deployment)} --replicas=1",
        )
    said = unavailable(observed, deployment)
    if said is None:
        return None
    return Finding(
        NAME,
        "wrong",
        "the operator is not running",
        f"kubectl -n {system} logs deployment/{name_of(deployment)} says more",
        tuple(said),
    )


def _idle(observed: Observed, system: str) -> Finding | None:
    """A pod that runs and does not lead."""
    if isinstance(observed.lease, Unknown):
        return None
    remedy = f"kubectl -n {system} logs -l app.kubernetes.io/component=operator says why"
    if observed.lease is None:
        return Finding(NAME, "wrong", "no operator has ever taken the Lease: none is at work", remedy)
    spec = observed.lease.get("spec") or {}
    silent = silence(spec, observed.now)
    if silent is None or not spec.get("holderIdentity"):
        return Finding(NAME, "wrong", "nobody holds the Lease: no operator is at work", remedy)
    if silent > LATE * float(spec.get("leaseDurationSeconds") or 15):
        return Finding(
            NAME, "wrong", f"the operator has been silent for {silent:.0f} s (its Lease is not renewed)", remedy
        )
    return None


def silence(spec: Object, now: datetime) -> float | None:
    """Seconds since a Lease was renewed."""
    try:
        renewed = datetime.fromisoformat(str(spec.get("renewTime")))
    except ValueError:
        return None
    return (now - renewed.astimezone(UTC)).total_seconds()


def _well(observed: Observed) -> str:
    if isinstance(observed.lease, dict):
        holder = (observed.lease.get("spec") or {}).get("holderIdentity")
        return f"it runs in {observed.system}, and {holder} leads"
    return f"it runs in {observed.system}"
