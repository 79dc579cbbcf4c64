"""What an uninstall leaves: last of all, since the store of the tests goes with it."""

from __future__ import annotations

SYSTEM = "frazil-system"


def test_crds_jobs_and_credentials_outlive_the_release(tenant):
    cluster = tenant.cluster
    name = tenant.apply(tenant.small_job("outlives"))
    tenant.until(name, "Complete")
    before = tenant.get(name)
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
    assert len(tenant.pods(name)) == 1, "a finished job was made again"
