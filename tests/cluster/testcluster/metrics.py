"""What the operator counts of itself, and what the API server counts of everybody."""

from __future__ import annotations

from testcluster.tenant import Tenant


def writes(tenant: Tenant) -> dict[str, float]:
    """The operator's own count of its writes, by verb and resource, without those of its lease."""
    counted = _counted(tenant, "frazil_api_writes_total")
    return {labels: count for labels, count in counted.items() if 'resource="lease"' not in labels}


def reconciles(tenant: Tenant) -> int:
    """How often the operator has looked at a job, any job."""
    return int(sum(_counted(tenant, "frazil_reconcile_total").values()))


def versions(tenant: Tenant, *names: str) -> dict[str, str]:
    """The resourceVersion of jobs and of their children, which counts the writes of anybody."""
    found = {name: tenant.get(name) for name in names}
    for name in names:
        kinds, selector = "jobs,pods,configmaps,services,podgroups", f"frazil.dev/job-name={name}"
        for child in tenant.cluster.list(kinds, namespace=tenant.namespace, selector=selector):
            found[f"{child['kind']} {child['metadata']['name']}"] = child
    return {name: thing["metadata"]["resourceVersion"] for name, thing in found.items()}


def _counted(tenant: Tenant, metric: str) -> dict[str, float]:
    (pod,) = tenant.installation.pods("operator")
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    path = f"/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/metrics"
    lines = tenant.cluster.kubectl("get", "--raw", path).stdout.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith(metric))
    return {labels: float(value) for labels, value in pairs}
