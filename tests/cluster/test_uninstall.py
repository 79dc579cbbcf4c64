"""What an uninstall leaves: last of all, since the store of the tests goes with it."""

from __future__ import annotations

SYSTEM = "frazil-system"


def test_crds_jobs_and_credentials_outlive_the_release(tenant, finished):
    cluster, name = tenant.cluster, finished
    before, children = tenant.get(name), uids_of(tenant, name)
    credentials = tenant.secret("frazil-credentials", namespace=SYSTEM)
    tenant.installation.uninstall()
    try:
        assert cluster.kubectl("get", "deployments", "-n", SYSTEM, "-o", "name").stdout == ""
        assert tenant.get(name)["status"] == before["status"]
        assert tenant.get(name)["metadata"]["uid"] == before["metadata"]["uid"]
        assert tenant.secret("frazil-credentials", namespace=SYSTEM) == credentials
    finally:
        from testcluster.frazil import TENANTS

        tenant.installation.install(tenant.installation.values(*TENANTS))
    assert tenant.secret("frazil-credentials", namespace=SYSTEM) == credentials
    assert tenant.status(name)["phase"] == "Complete"
    assert uids_of(tenant, name) == children, "a finished job was made again"


def uids_of(tenant, name: str) -> list[str]:
    """Of the Jobs and pods of a job."""
    selector = f"frazil.dev/job-name={name}"
    things = tenant.cluster.list("jobs,pods", namespace=tenant.namespace, selector=selector)
    return sorted(one["metadata"]["uid"] for one in things)
