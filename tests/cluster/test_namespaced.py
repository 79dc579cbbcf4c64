"""The operator with Roles in the namespaces that it's told, and nothing beyond: jobs run there all the same."""

from __future__ import annotations

import json

import pytest
from testcluster.frazil import TENANTS

SYSTEM = "frazil-system"


@pytest.fixture
def namespaced(tenant):
    release = tenant.installation
    release.install(release.values(*TENANTS, namespaces=[tenant.namespace]))
    yield tenant
    release.install(release.values(*TENANTS))


@pytest.mark.slow
def test_a_job_runs_where_the_operator_has_a_role_and_none_elsewhere(namespaced, neighbour, tmp_path):
    cluster = namespaced.cluster
    assert cluster.kubectl("get", "clusterrolebinding", "frazil-operator", check=False).returncode
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json").stdout)
    token = cluster.kubectl("create", "token", "frazil-operator", "-n", SYSTEM).stdout.strip()
    config["users"] = [{"name": "admin", "user": {"token": token}}]
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    for place, allowed in ((["-n", namespaced.namespace], True), (["-n", neighbour.namespace], False), (["-A"], False)):
        ended = cluster.kubectl(f"--kubeconfig={path}", "get", "pods", *place, check=False)
        assert (ended.returncode == 0) is allowed, place
    beyond = neighbour.apply(neighbour.small_job("beyond"))
    try:
        name = namespaced.apply(namespaced.small_job("within"))
        namespaced.until(name, "Complete")
        assert neighbour.status(beyond) == {}
    finally:
        neighbour.remove(beyond)
