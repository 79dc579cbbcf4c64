"""Faults on the real cluster: whatever dies, the end is the same, byte for byte, and nothing is made twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from testcluster.tenant import PROMPTS

SYSTEM = "frazil-system"


def wait_for_stored(tenant, name: str, count: int = 1) -> None:
    """Until some pictures are in the store."""

    def stored() -> bool:
        status = tenant.status(name)
        if status.get("phase") in ("Failed", "Complete"):
            raise AssertionError(f"{name} is {status['phase']} too early:\n{tenant.why(name)}")
        return "outputs" in status and len(tenant.images(name)) >= count

    tenant.cluster.until(f"{count} pictures of {name} are stored", stored, seconds=120)


def long_job(tenant, name: str, **spec):
    """A job of two shards that take some seconds each, so that something can die in between."""
    return tenant.job(name, imagesPerPrompt=3, prompts={"inline": PROMPTS[:4], "perShard": 2}, **spec)


@pytest.fixture(scope="module")
def undisturbed(tenant):
    """The long job's pictures, made in peace."""
    name = tenant.apply(long_job(tenant, "peace"))
    tenant.until(name, "Complete")
    return tenant.images(name)


def ended_alike(tenant, name: str, undisturbed: dict[str, str], *, seconds: float = 200) -> dict:
    status = tenant.until(name, "Complete", seconds=seconds)
    assert tenant.images(name) == undisturbed
    assert status["progress"]["summary"] == f"{len(undisturbed)}/{len(undisturbed)}"
    return status


def processes_of(tenant, name: str, module: str) -> list[int]:
    """Processes of this machine that run a module in a container of a job's pods."""
    containers = {
        status["containerID"].rpartition("/")[2]
        for pod in tenant.pods(name)
        for kind in ("containerStatuses", "initContainerStatuses")
        for status in pod["status"].get(kind, ())
        if status.get("containerID")
    }
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and module in (entry / "cmdline").read_text().split("\0"):
                cgroup = (entry / "cgroup").read_text()
                if any(container in cgroup for container in containers):
                    found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def test_a_deleted_pod_is_replaced_and_nothing_is_charged_twice(tenant, undisturbed):
    name = tenant.apply(long_job(tenant, "pod-deleted"))
    wait_for_stored(tenant, name)
    running = [pod for pod in tenant.pods(name) if pod["status"]["phase"] == "Running"]
    tenant.cluster.kubectl(
        "delete", "pod", running[0]["metadata"]["name"], "-n", tenant.namespace, "--grace-period=1", "--wait=false"
    )
    ended_alike(tenant, name, undisturbed)


def test_a_killed_rank_fails_its_pod_and_the_shard_is_tried_again(tenant, undisturbed):
    name = tenant.apply(long_job(tenant, "rank-killed"))
    wait_for_stored(tenant, name)
    ranks = tenant.cluster.until("a rank runs", lambda: processes_of(tenant, name, "frazil_jobs.generation.worker"))
    os.kill(ranks[-1], signal.SIGKILL)
    status = ended_alike(tenant, name, undisturbed)
    assert status["jobs"][0]["failed"] >= 1


def test_a_killed_uploader_starts_again_and_goes_on_with_the_spool(tenant, undisturbed):
    name = tenant.apply(long_job(tenant, "upload-killed"))
    wait_for_stored(tenant, name)
    for _ in range(3):
        (uploader,) = tenant.cluster.until(
            "the uploader runs", lambda: processes_of(tenant, name, "frazil_jobs.outputs.upload")
        )
        os.kill(uploader, signal.SIGKILL)
        time.sleep(1)
    ended_alike(tenant, name, undisturbed)


def test_an_emptied_redis_costs_a_rescan(tenant, undisturbed):
    name = tenant.apply(long_job(tenant, "redis-gone"))
    wait_for_stored(tenant, name)
    selector = "app.kubernetes.io/component=redis"
    tenant.cluster.kubectl("delete", "pod", "-n", SYSTEM, "-l", selector, "--grace-period=0", "--force")
    ended_alike(tenant, name, undisturbed)


def test_the_operator_killed_at_any_time_goes_on_where_it_was(tenant, undisturbed):
    name = tenant.apply(long_job(tenant, "operator-killed"))
    selector = "app.kubernetes.io/component=operator"
    for pause in (0.5, 4, 7):
        time.sleep(pause)
        tenant.cluster.kubectl("delete", "pod", "-n", SYSTEM, "-l", selector, "--grace-period=0", "--force")
    ended_alike(tenant, name, undisturbed)
    assert len(tenant.pods(name)) == 2


def test_an_api_server_that_restarts_is_found_again(tenant, undisturbed):
    name = tenant.apply(long_job(tenant, "apiserver-gone"))
    wait_for_stored(tenant, name)
    tenant.cluster.restart_apiserver()
    ended_alike(tenant, name, undisturbed)
    assert len(tenant.pods(name)) == 2


@pytest.mark.slow
def test_a_store_that_is_down_for_a_minute_is_caught_up_with(tenant, undisturbed):
    name = tenant.apply(long_job(tenant, "store-down"))
    wait_for_stored(tenant, name)
    deployment = "deployment/frazil-minio"
    kubectl = tenant.cluster.kubectl
    # The pod stays (its folder holds the results): only the Service leads nowhere.
    selector = tenant.cluster.get("service", "frazil-minio", namespace=SYSTEM)["spec"]["selector"]
    away = {**selector, "app.kubernetes.io/component": "away"}
    patch = '{"spec":{"selector":{"app.kubernetes.io/component":"%s"}}}'
    kubectl("patch", "service", "frazil-minio", "-n", SYSTEM, "-p", patch % away["app.kubernetes.io/component"])
    try:
        time.sleep(60)
        assert tenant.status(name)["phase"] != "Failed"
    finally:
        kubectl("patch", "service", "frazil-minio", "-n", SYSTEM, "-p", patch % "minio")
    assert kubectl("get", deployment, "-n", SYSTEM).returncode == 0
    ended_alike(tenant, name, undisturbed, seconds=300)


@pytest.mark.slow
def test_a_lost_node_takes_no_picture_with_it(tenant, undisturbed):
    cluster = tenant.cluster
    node = cluster.add_node(1)
    try:
        cluster.gpus(2, node=node.name)
        job = long_job(
            tenant, "node-lost", workers={"template": {"nodeSelector": {"kubernetes.io/hostname": node.name}}}
        )
        name = tenant.apply(job)
        wait_for_stored(tenant, name)
        node.kill()
        # The shard can go nowhere else until the selector's node is back: so it comes back, after the pods were given up.
        cluster.until(
            "the lost pod was given up, and another waits",
            lambda: (
                "was given up" in cluster.kubectl("get", "events", "-n", tenant.namespace).stdout
                and any(pod["status"]["phase"] == "Pending" for pod in tenant.pods(name))
            ),
            seconds=180,
        )
        node.start()
        cluster.until(f"{node.name} is ready again", lambda: cluster._ready(node.name), seconds=120)
        cluster.gpus(2, node=node.name)
        ended_alike(tenant, name, undisturbed, seconds=300)
    finally:
        cluster.kubectl(
            "delete", "gj", "node-lost", "-n", tenant.namespace, "--wait=false", "--ignore-not-found", check=False
        )
        node.stop()
        cluster.kubectl("delete", "node", node.name, "--ignore-not-found")
