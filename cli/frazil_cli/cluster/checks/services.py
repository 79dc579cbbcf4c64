"""Whether broker, store and the worker of the chart can be reached."""

from __future__ import annotations

from typing import Final

from frazil_cli.cluster.checks.operator import component, unavailable
from frazil_cli.cluster.observed import Finding, Observed, Probe, Unknown, condition, name_of
from frazil_jobs.api import conditions as c

NAME: Final = "services"
_WORKLOADS: Final = {"redis": "the broker (Redis)", "minio": "the store (MinIO)", "worker": "the worker"}
_FELT: Final = (
    (c.PROMPTS_INSPECTED, c.WORKER_SILENT),
    (c.PROMPTS_INSPECTED, c.PROMPTS_UNREACHABLE),
    (c.OUTPUTS_STORED, c.UPLOAD_FAILED),
)
"""Condition and reason by which a job says that something doesn't answer."""


def check(observed: Observed) -> Finding:
    """Broker or store unreachable: by their pods, by asking them, and by what jobs say."""
    wrong: list[str] = []
    remedy = ""
    for name, words in _WORKLOADS.items():
        deployment = component(observed, name)
        if deployment is not None and (said := unavailable(observed, deployment)) is not None:
            wrong += [f"{words} is not running: {line}" for line in said]
            remedy = remedy or f"kubectl -n {observed.system} describe deployment/{name_of(deployment)}"
    probes = {"the broker": observed.broker} | {f"the store {name!r}": one for name, one in observed.stores.items()}
    for words, probe in probes.items():
        if isinstance(probe, Probe) and not probe.ok and not probe.denied:
            wrong.append(f"{words} does not answer: {probe.message}")
            remedy = remedy or "check that it runs, and endpoint and url in the Secrets of the namespace"
    for job in observed.at_work:
        for kind, reason in _FELT:
            one = condition(job, kind)
            if one.get("reason") == reason:
                wrong.append(f"{name_of(job)}: {reason}: {one.get('message', '')}")
                remedy = remedy or "it is tried again; check broker, store and the worker Deployment"
    if wrong:
        return Finding(NAME, "wrong", "broker, store or worker can't be reached", remedy, tuple(wrong[:5]))
    answered = [words for words, probe in probes.items() if isinstance(probe, Probe) and probe.ok]
    unasked = tuple(f"{words}: {probe.why}" for words, probe in probes.items() if isinstance(probe, Unknown))
    if answered:
        return Finding(
            NAME, "ok", f"{' and '.join(answered)} answer{'s' if len(answered) == 1 else ''}", details=unasked
        )
    if isinstance(observed.deployments, Unknown) or not observed.deployments:
        return Finding(NAME, "unknown", "they can't be seen and weren't asked", details=unasked)
    return Finding(NAME, "ok", "their pods are ready (they weren't asked)", details=unasked)
