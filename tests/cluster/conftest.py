"""The cluster for the tests of a session: ours, brought up when it isn't there, or one that KUBECONFIG names."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from testcluster import binaries
from testcluster.cluster import Cluster
from testcluster.frazil import CHECKOUT, TENANTS, Installation
from testcluster.machine import reason_not_to
from testcluster.node import Node
from testcluster.shown import pytest_runtest_makereport, pytest_runtest_setup
from testcluster.tenant import Tenant

__all__ = ["pytest_runtest_makereport", "pytest_runtest_setup"]

KEEP = "FRAZIL_KEEP_CLUSTER"
EXISTING = "FRAZIL_TEST_KUBECONFIG"
"""Not KUBECONFIG itself, which may lead to a cluster that people need: the tests install, kill and uninstall."""
OURS = ("test_images.py", "test_gang_providers.py")
"""Files whose every test needs programs that are built for our own cluster. Single tests ask for `own_cluster`."""
SEED = "FRAZIL_TEST_SEED"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs the cluster, and patience for its start."""
    for item in items:
        if "tests/cluster/" in str(item.path):
            item.add_marker(pytest.mark.cluster)
            if item.path.name in OURS and os.environ.get(EXISTING):
                item.add_marker(
                    pytest.mark.skip(reason=f"it needs our own cluster, and that of {EXISTING} is somebody's")
                )
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real Kubernetes of one node with 4 GPUs that aren't there; or the one that FRAZIL_TEST_KUBECONFIG names."""
    if given := os.environ.get(EXISTING):
        theirs = Cluster(existing=Path(given))
        try:
            for name in ("kubectl", "helm"):
                theirs.program(name)
        except binaries.CannotBuild as error:
            pytest.fail(str(error))
        yield theirs
        return
    if reason := reason_not_to():
        pytest.skip(reason)
    found = Cluster()
    was_up = found.is_up()
    if not was_up:
        found.down()  # what an interrupted run left: its containers are dead, and its state speaks of them
    try:
        found.up(gpus=4, checkout=CHECKOUT)
    except (TimeoutError, binaries.CannotBuild) as error:
        pytest.fail(f"the cluster does not come up: {error}\n{found.logs(lines=25)}")
    yield found
    if not was_up and not os.environ.get(KEEP):
        found.down()


@pytest.fixture(scope="session")
def own_cluster(cluster: Cluster) -> Cluster:
    """The cluster, for tests that reach into its nodes and processes. Skips where it's somebody else's."""
    cluster.require_ours()
    return cluster


@pytest.fixture
def dice() -> random.Random:
    """Chance for one test. What it drew from is shown when the test fails, and FRAZIL_TEST_SEED has it drawn again."""
    seed = os.environ.get(SEED) or str(random.randrange(2**32))
    print(f"{SEED}={seed}")
    return random.Random(seed)


@pytest.fixture(scope="session")
def installation(cluster: Cluster) -> Installation:
    """Frazil, installed by Helm for two tenants."""
    found = Installation(cluster)
    for namespace in TENANTS:  # a cluster that was kept has the jobs of the last time
        kinds = "generationjobs,trainingjobs"
        cluster.kubectl("delete", kinds, "--all", "-n", namespace, "--timeout=60s", check=False)
    found.install(found.values(*TENANTS))
    return found


@pytest.fixture(scope="session")
def tenant(installation: Installation) -> Tenant:
    """The first tenant."""
    return Tenant(installation, TENANTS[0])


@pytest.fixture(scope="session")
def neighbour(installation: Installation) -> Tenant:
    """The other tenant."""
    return Tenant(installation, TENANTS[1])


@pytest.fixture(scope="session")
def finished(tenant: Tenant) -> str:
    """A job of the tenant that is Complete."""
    name = tenant.apply(tenant.job("finished", workers={"replicas": 2}))
    tenant.until(name, "Complete")
    return name


@pytest.fixture(scope="session")
def failed(tenant: Tenant) -> str:
    """A job of the tenant that is Failed, by a pod that said that it can't work: its model is nowhere."""
    nowhere = f"s3://frazil/results/{tenant.namespace}/models/none"
    name = tenant.apply(tenant.small_job("failed", model={"uri": nowhere}))
    tenant.until(name, "Failed")

    def counted() -> bool:
        status = tenant.status(name)
        return status["jobs"][0]["failed"] == 1 and status["workers"]["active"] == 0

    tenant.cluster.until("how its pod ended is counted", counted)
    return name


@pytest.fixture(scope="session")
def undisturbed(tenant: Tenant) -> dict[str, str]:
    """The images of the tenant's long job, made in peace: name and sha256."""
    name = tenant.apply(tenant.long_job("peace"))
    tenant.until(name, "Complete")
    return tenant.images(name)


@pytest.fixture(scope="session")
def reference(tenant: Tenant, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The images of the tenant's job as `frazil run` makes them on two ranks of a thread each: name and sha256."""
    from frazil_command import Frazil

    frazil = Frazil(tmp_path_factory.mktemp("reference"))
    frazil.env = tenant.config("read").to_env() | {"FRAZIL_STORE": ""}
    job = frazil.write_job(tenant.job("reference"))
    ended = frazil("run", job, "--store", frazil.store, "--ranks", "2", "--threads", "1", "--json")
    assert ended.returncode == 0, ended.stderr + frazil.logs()
    return frazil.stored()


@dataclass(frozen=True)
class SecondNode:
    """A node with 2 GPUs beside the first."""

    cluster: Cluster
    node: Node

    @property
    def selector(self) -> dict[str, str]:
        """What keeps pods on it."""
        return {"kubernetes.io/hostname": self.node.name}

    def lose(self, tenant: Tenant, name: str, kind: str = "generationjob") -> None:
        """It's gone until the pods of a job that it had are given up, then it comes back: they can go nowhere else."""
        before = {pod["metadata"]["uid"] for pod in tenant.pods(name)}
        self.node.kill()

        def given_up() -> bool:
            said = self.cluster.kubectl("get", "events", "-n", tenant.namespace).stdout
            waiting = [pod for pod in tenant.pods(name) if pod["status"]["phase"] == "Pending"]
            return "was given up" in said and bool({pod["metadata"]["uid"] for pod in waiting} - before)

        self.cluster.until("the lost pods were given up, and others wait", given_up, seconds=180)
        self.node.start()
        self.cluster.until(
            f"{self.node.name} is ready again", lambda: self.cluster.is_ready(self.node.name), seconds=120
        )
        self.cluster.gpus(2, node=self.node.name)


@pytest.fixture
def second_node(own_cluster: Cluster, tenant: Tenant) -> Iterator[SecondNode]:
    """A second node for one test. Jobs of the test that are bound to it are removed with it."""
    cluster = own_cluster
    node = cluster.add_node(1)
    try:
        cluster.gpus(2, node=node.name)
        yield SecondNode(cluster, node)
    finally:
        kinds = "generationjobs,trainingjobs"
        where = ["-n", tenant.namespace, "--wait=false", "--ignore-not-found"]
        cluster.kubectl("delete", kinds, "node-lost", *where, check=False)
        node.stop()
        cluster.kubectl("delete", "node", node.name, "--ignore-not-found")
