"""What the API server refuses a job, and names that are somebody else's: said in the status, and made when it may be."""

from __future__ import annotations

import json


def ready(tenant, name: str) -> dict:
    conditions = {one["type"]: one for one in tenant.status(name).get("conditions", [])}
    return dict(conditions.get("PodsReady", {}))


def until_refused(tenant, name: str, words: str) -> None:
    def refused() -> bool:
        found = ready(tenant, name)
        return found.get("reason") == "Refused" and words in found["message"]

    tenant.cluster.until(f"the status says {words!r}", refused, seconds=60)
    assert tenant.status(name)["phase"] not in ("Complete", "Failed")


def until_made(tenant, name: str) -> None:
    """Tried again with pauses that grow to a minute."""
    tenant.cluster.until("its child is there", lambda: tenant.children(name), seconds=120)
    tenant.cluster.until("it is no longer refused", lambda: ready(tenant, name).get("reason") != "Refused", seconds=30)


def test_a_service_of_somebody_else_that_has_the_name_is_left_alone(tenant):
    cluster, name = tenant.cluster, "namesake"
    where = ["-n", tenant.namespace]
    cluster.kubectl("create", "service", "clusterip", name, "--tcp=80:80", *where)
    try:
        before = cluster.get("service", name, namespace=tenant.namespace)
        workers = {"nodesPerReplica": 2, "gpusPerNode": 1, "accelerator": "example.com/none"}
        tenant.apply(tenant.job(name, workers=workers))
        until_refused(tenant, name, f"Service '{name}'")
        after = cluster.get("service", name, namespace=tenant.namespace)
        assert (after["spec"], after["metadata"]["uid"]) == (before["spec"], before["metadata"]["uid"])
        assert "ownerReferences" not in after["metadata"]
        cluster.kubectl("delete", "service", name, *where)
        until_made(tenant, name)
    finally:
        tenant.remove(name)
        cluster.kubectl("delete", "service", name, *where, "--ignore-not-found")


def test_a_quota_that_refuses_a_child_is_in_the_status_until_it_is_raised(tenant):
    cluster, name = tenant.cluster, "beyond-quota"
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-jobs", "namespace": tenant.namespace},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    cluster.apply(quota)
    try:
        cluster.until(
            "the quota is counted",
            lambda: cluster.get("resourcequota", "no-jobs", namespace=tenant.namespace)["status"]["hard"],
        )
        tenant.apply(tenant.job(name, workers={"accelerator": "example.com/none"}))
        until_refused(tenant, name, "exceeded quota")
        events = cluster.list("events", namespace=tenant.namespace)
        assert any(one["reason"] == "Refused" and one["involvedObject"]["name"] == name for one in events), json.dumps(
            [one["reason"] for one in events]
        )
        cluster.kubectl("delete", "resourcequota", "no-jobs", "-n", tenant.namespace)
        until_made(tenant, name)
    finally:
        cluster.kubectl("delete", "resourcequota", "no-jobs", "-n", tenant.namespace, "--ignore-not-found")
        tenant.remove(name)
