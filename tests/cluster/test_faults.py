"""Faults on the real cluster: whatever dies, the end is the same, byte for byte, and nothing is made twice."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest

SYSTEM = "frazil-system"
UPLOADER = "frazil_jobs.outputs.upload"
MINIO = "server"  # `minio server /data`


def wait_for_stored(tenant, name: str, count: int = 1) -> None:
    """Until some pictures are in the store."""

    def stored() -> bool:
        status = tenant.status(name)
        if status.get("phase") in ("Failed", "Complete"):
            raise AssertionError(f"{name} is {status['phase']} too early:\n{tenant.why(name)}")
        return "outputs" in status and len(tenant.images(name)) >= count

    tenant.cluster.until(f"{count} pictures of {name} are stored", stored, seconds=120)


def ended_alike(tenant, name: str, undisturbed: dict[str, str], *, seconds: float = 200) -> dict:
    status = tenant.until(name, "Complete", seconds=seconds)
    assert tenant.images(name) == undisturbed
    assert status["progress"]["summary"] == f"{len(undisturbed)}/{len(undisturbed)}"
    return status


def unread_from(address: str, store: int, *, port: int = 9000) -> bool:
    """Whether a store that is stopped has got something from a pod that it has not read."""
    sender = ipaddress.ip_address(address).packed[::-1].hex().upper()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{store}/net/{family}").read_text().splitlines()[1:]:
            _, local, remote, _, queues, *_ = line.split()
            waiting = int(queues.partition(":")[2], 16)
            if waiting and local.endswith(f":{port:04X}") and remote.partition(":")[0].endswith(sender):
                return True
    return False


def answers(tenant) -> bool:
    """Whether the store answers just now."""
    try:
        with urllib.request.urlopen(f"{tenant.endpoint()}/minio/health/live", timeout=1):
            return True
    except OSError:
        return False


def test_a_deleted_pod_is_replaced_and_nothing_is_charged_twice(tenant, undisturbed):
    name = tenant.apply(tenant.long_job("pod-deleted"))
    wait_for_stored(tenant, name)
    running = [pod for pod in tenant.pods(name) if pod["status"]["phase"] == "Running"]
    tenant.cluster.kubectl(
        "delete", "pod", running[0]["metadata"]["name"], "-n", tenant.namespace, "--grace-period=1", "--wait=false"
    )
    status = ended_alike(tenant, name, undisturbed)
    assert status["jobs"][0]["failed"] == 1, "deleted by a hand, it's charged like any pod that ended too early: once"


@pytest.mark.slow
@pytest.mark.usefixtures("own_cluster")
def test_a_killed_rank_fails_its_pod_and_the_shard_is_tried_again(tenant, undisturbed):
    name = tenant.apply(tenant.long_job("rank-killed"))
    wait_for_stored(tenant, name)
    ranks = tenant.cluster.until(
        "a rank runs", lambda: tenant.cluster.processes_of(tenant.pods(name), "frazil_jobs.generation.worker")
    )
    os.kill(ranks[-1], signal.SIGKILL)
    status = ended_alike(tenant, name, undisturbed)
    assert status["jobs"][0]["failed"] >= 1


@pytest.mark.slow
@pytest.mark.usefixtures("own_cluster")
def test_a_killed_uploader_starts_again_and_goes_on_with_the_spool(tenant, undisturbed):
    name = tenant.apply(tenant.long_job("upload-killed"))
    wait_for_stored(tenant, name)
    for _ in range(3):
        (uploader,) = tenant.cluster.until(
            "the uploader runs", lambda: tenant.cluster.processes_of(tenant.pods(name), UPLOADER)
        )
        os.kill(uploader, signal.SIGKILL)
        time.sleep(1)
    ended_alike(tenant, name, undisturbed)


def test_an_emptied_redis_costs_a_rescan(tenant, undisturbed):
    name = tenant.apply(tenant.long_job("redis-gone"))
    wait_for_stored(tenant, name)
    broker = tenant.broker()
    mark = f"frazil:{tenant.namespace}:mark"
    broker.set(mark, "1")
    selector = "app.kubernetes.io/component=redis"
    tenant.cluster.kubectl("delete", "pod", "-n", SYSTEM, "-l", selector, "--grace-period=0", "--force")
    ended_alike(tenant, name, undisturbed)
    assert broker.get(mark) is None, "it was not emptied"


def test_the_operator_killed_at_any_time_goes_on_where_it_was(tenant, undisturbed, dice):
    name = tenant.apply(tenant.long_job("operator-killed"))
    for _ in range(3):
        time.sleep(dice.uniform(0, 6))
        tenant.installation.kill_operator()
    ended_alike(tenant, name, undisturbed)
    assert len(tenant.pods(name)) == 2


@pytest.mark.slow
def test_a_second_operator_takes_over_from_one_that_is_killed(tenant, undisturbed):
    scale = ["scale", "deployment/frazil-operator", "-n", SYSTEM]

    def holder() -> str:
        """The pod that leads."""
        lease = tenant.cluster.get("lease", "frazil-operator", namespace=SYSTEM)
        return str(lease["spec"]["holderIdentity"]).partition("_")[0]

    tenant.cluster.kubectl(*scale, "--replicas=2")
    try:
        tenant.cluster.kubectl("rollout", "status", "deployment/frazil-operator", "-n", SYSTEM, "--timeout=60s")
        names = {pod["metadata"]["name"] for pod in tenant.installation.pods("operator")}
        first = tenant.cluster.until("one leads", holder)
        assert first in names
        name = tenant.apply(tenant.long_job("taken-over"))
        wait_for_stored(tenant, name)
        tenant.cluster.kubectl("delete", "pod", first, "-n", SYSTEM, "--grace-period=0", "--force")
        tenant.cluster.until("another leads", lambda: holder() not in ("", first), seconds=60)
        ended_alike(tenant, name, undisturbed)
        assert len(tenant.pods(name)) == 2
    finally:
        tenant.cluster.kubectl(*scale, "--replicas=1")
        tenant.cluster.until("one is left", lambda: len(tenant.installation.pods("operator")) == 1, seconds=90)


@pytest.mark.slow
@pytest.mark.usefixtures("own_cluster")
def test_an_api_server_that_restarts_is_found_again(tenant, undisturbed):
    name = tenant.apply(tenant.long_job("apiserver-gone"))
    wait_for_stored(tenant, name)
    tenant.cluster.restart_apiserver()
    ended_alike(tenant, name, undisturbed)
    assert len(tenant.pods(name)) == 2


@pytest.mark.usefixtures("own_cluster")
def test_a_celery_worker_killed_in_mid_upload_uploads_it_again(tenant, undisturbed):
    """The store's process is stopped, so that an upload begins and can't end; then its worker is killed with -9."""
    name = tenant.apply(tenant.long_job("mid-upload"))
    wait_for_stored(tenant, name)
    (store,) = tenant.cluster.processes_of(tenant.installation.pods("minio"), MINIO)

    def under_way() -> int | None:
        for pod in tenant.pods(name):
            uploaders = tenant.cluster.processes_of([pod], UPLOADER)
            if uploaders and unread_from(pod["status"]["podIP"], store):
                return uploaders[0]
        return None

    os.kill(store, signal.SIGSTOP)
    try:
        uploader = tenant.cluster.until("an upload is under way", under_way, seconds=25)
        os.kill(uploader, signal.SIGKILL)
    finally:
        os.kill(store, signal.SIGCONT)
    ended_alike(tenant, name, undisturbed)


@pytest.mark.slow
def test_a_recount_that_was_asked_of_nobody_in_a_broker_that_forgot_it_is_asked_again(tenant, undisturbed):
    name = tenant.apply(tenant.long_job("recount-lost"))
    tenant.until(name, "Running")  # the prompts are inspected, and the recount is a while away
    scale = ["scale", "deployment/frazil-worker", "-n", SYSTEM]
    tenant.cluster.kubectl(*scale, "--replicas=0")

    def asked() -> bool:
        found = {one["type"]: one["reason"] for one in tenant.status(name).get("conditions", [])}
        return found.get("OutputsStored") == "Finalizing"

    try:
        tenant.cluster.until("the recount was asked for", asked, seconds=150)
        selector = "app.kubernetes.io/component=redis"
        tenant.cluster.kubectl("delete", "pod", "-n", SYSTEM, "-l", selector, "--grace-period=0", "--force")
    finally:
        tenant.cluster.kubectl(*scale, "--replicas=1")
    ended_alike(tenant, name, undisturbed)


@pytest.mark.slow
@pytest.mark.usefixtures("own_cluster")
def test_a_store_that_is_down_for_a_minute_is_caught_up_with(tenant, undisturbed):
    """Its process is killed with -9 whenever it comes back, for a minute: connections that were open die with it."""
    name = tenant.apply(tenant.long_job("store-down"))
    wait_for_stored(tenant, name)
    end, there = time.monotonic() + 60, []
    while time.monotonic() < end:
        for process in tenant.cluster.processes_of(tenant.installation.pods("minio"), MINIO):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        there.append(answers(tenant))
        time.sleep(0.2)
    assert there.count(False) > 4 * there.count(True), "it was hardly ever away"
    assert tenant.status(name)["phase"] not in ("Failed", "Complete")
    # The kubelet waits longer with each crash before it starts it again.
    tenant.cluster.until("the store answers again", lambda: answers(tenant), seconds=180)
    ended_alike(tenant, name, undisturbed, seconds=300)


@pytest.mark.slow
def test_a_lost_node_takes_no_picture_with_it(tenant, second_node, undisturbed):
    name = tenant.apply(tenant.long_job("node-lost", workers={"template": {"nodeSelector": second_node.selector}}))
    wait_for_stored(tenant, name)
    second_node.lose(tenant, name)
    status = ended_alike(tenant, name, undisturbed, seconds=300)
    assert status["jobs"][0]["failed"] == 0, "a disruption was charged"
