"""What a person does to a job while its pods run: stop it and let it go on, scale it, give it to another controller."""

from __future__ import annotations

import time
from datetime import datetime

import pytest
from testcluster.metrics import reconciles


def running(tenant, name: str) -> list[dict]:
    """Pods that have not ended, and are not about to."""
    return [
        pod
        for pod in tenant.pods(name)
        if pod["status"]["phase"] in ("Pending", "Running") and not pod["metadata"].get("deletionTimestamp")
    ]


def stored(tenant, name: str) -> dict[str, datetime]:
    """Keys of the images in the store, and when they were put there."""
    prefix = str(tenant.status(name)["outputs"]["uri"]).removeprefix("s3://frazil/")
    found = tenant.client("read").list_objects(bucket_name="frazil", prefix=f"{prefix}images/")
    return {one.object_name: one.last_modified for one in found}


@pytest.mark.slow
def test_suspended_in_mid_run_it_gives_its_pods_back_and_ends_alike(tenant, undisturbed):
    name = tenant.apply(tenant.long_job("pauses"))

    def estimated() -> dict | None:
        progress = tenant.status(name).get("progress", {})
        return progress if progress.get("stored") and "estimatedRemainingSeconds" in progress else None

    progress = tenant.cluster.until("pictures are stored, and the rest is estimated", estimated, seconds=120)
    assert float(progress["imagesPerSecond"]) > 0
    assert progress["estimatedRemainingSeconds"] > 0
    tenant.patch(name, {"suspend": True})
    tenant.until(name, "Suspended")
    tenant.cluster.until("its pods are gone", lambda: not running(tenant, name))
    tenant.cluster.until("the status says so", lambda: tenant.status(name)["workers"]["active"] == 0)
    before = stored(tenant, name)
    assert 0 < len(before) < len(undisturbed)
    tenant.patch(name, {"suspend": False})
    status = tenant.until(name, "Complete")
    assert tenant.images(name) == undisturbed
    assert before.items() <= stored(tenant, name).items(), "what was stored was made again"
    assert "estimatedRemainingSeconds" not in status["progress"]
    assert status["jobs"][0]["failed"] == 0


@pytest.mark.slow
def test_scaled_up_and_down_in_mid_run_it_ends_alike(tenant, reference):
    name = tenant.apply(tenant.job("scales"))
    tenant.until(name, "Running")
    (first,) = running(tenant, name)
    scale = ["scale", "gj", name, "-n", tenant.namespace]
    tenant.cluster.kubectl(*scale, "--replicas=2")
    tenant.cluster.until("two pods run", lambda: len(running(tenant, name)) == 2)
    tenant.cluster.until("the status counts both", lambda: tenant.status(name)["workers"]["active"] == 2)
    tenant.cluster.kubectl(*scale, "--replicas=1")
    tenant.cluster.until("one is left", lambda: len(running(tenant, name)) == 1)
    kept = {pod["metadata"]["uid"] for pod in tenant.pods(name) if not pod["metadata"].get("deletionTimestamp")}
    assert first["metadata"]["uid"] in kept, "it was not the pod that came last that went"
    status = tenant.until(name, "Complete")
    assert tenant.images(name) == reference
    assert status["jobs"][0]["failed"] == 0, "a pod that was not wanted any more was charged"


def test_a_job_of_another_controller_is_left_alone(tenant):
    """It's heard of, as any other, and nothing comes of it: no child, no finalizer, no status."""
    before = reconciles(tenant)
    job = tenant.small_job("theirs", managedBy="kueue.x-k8s.io/multikueue", output={"whenDeleted": "Delete"})
    name = tenant.apply(job)
    tenant.cluster.until("the operator has looked at it", lambda: reconciles(tenant) > before)
    made = tenant.get(name)
    time.sleep(3)
    assert tenant.get(name)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert "status" not in made
    assert "finalizers" not in made["metadata"]
    selector = f"frazil.dev/job-name={name}"
    assert tenant.cluster.list("jobs,pods,configmaps", namespace=tenant.namespace, selector=selector) == []
    tenant.remove(name)
