"""A TrainingJob's gang on the real cluster: a small Llama over two pods, placed together, restarted together, from the last
committed checkpoint, with the very weights in the end that a run has which nothing disturbed.
"""

from __future__ import annotations

import json
import time

import pytest
from gangjobs import small_llama

STEPS = 300
"""So many that there is time to disturb a run before it ends."""


def end_of(tenant, name: str) -> dict:
    """What the manifest says: steps, and the sha256 of each file of weights."""
    status = tenant.status(name, "trainingjob")
    stored = {one["type"]: one["reason"] for one in status["conditions"]}["OutputsStored"]
    assert (stored, status["outputs"]["manifest"]) == ("AllStored", status["outputs"]["uri"] + "manifest.json")
    assert status["outputs"]["bytes"] > 0
    prefix = str(status["outputs"]["uri"]).removeprefix("s3://frazil/results/")
    manifest = json.loads(tenant.read(f"{prefix}manifest.json"))
    weights = {one["key"]: one["sha256"] for one in manifest["outputs"] if one["key"].endswith(".safetensors")}
    assert weights
    return {"steps": manifest["steps"], "weights": weights}


def wait_for_checkpoint(tenant, name: str) -> None:
    """Until a checkpoint is committed."""
    tenant.cluster.until(
        f"a checkpoint of {name} is committed",
        lambda: tenant.status(name, "trainingjob").get("checkpoint", {}).get("step", 0) >= 10,
        seconds=240,
    )


@pytest.fixture(scope="module")
def undisturbed(tenant) -> dict:
    """A run that nothing disturbed."""
    name = tenant.apply(small_llama(tenant, "quiet", steps=STEPS))
    tenant.until(name, "Complete", seconds=400, kind="trainingjob")
    return end_of(tenant, name)


@pytest.fixture(scope="module")
def bereft(tenant) -> str:
    """A run whose gang has lost a rank, after a checkpoint; it's over."""
    name = tenant.apply(small_llama(tenant, "chain", steps=STEPS))
    wait_for_checkpoint(tenant, name)
    (lost,) = [pod for pod in tenant.pods(name) if pod["metadata"]["name"].startswith(f"{name}-a0-1-")]
    where = ["-n", tenant.namespace, "--grace-period=1", "--wait=false"]
    tenant.cluster.kubectl("delete", "pod", lost["metadata"]["name"], *where)
    tenant.until(name, "Complete", seconds=400, kind="trainingjob")
    return name


@pytest.mark.slow
def test_a_gang_that_loses_a_rank_goes_on_from_its_checkpoint(tenant, bereft):
    status = tenant.status(bereft, "trainingjob")
    assert status["scheduling"]["provider"] == "native-v1beta1"
    assert status["attempt"] >= 1
    assert status["restarts"] == status["attempt"], "deleted by a hand, a rank is charged like one that failed"
    assert status["progress"]["step"] == STEPS
    assert status["checkpoint"]["step"] == STEPS
    assert status["checkpoint"]["resumedFromStep"] >= 10
    assert end_of(tenant, bereft)["steps"] == STEPS


@pytest.mark.slow
def test_a_lost_rank_changes_no_weight(tenant, bereft, undisturbed):
    assert end_of(tenant, bereft) == undisturbed


@pytest.mark.slow
def test_an_operator_that_is_killed_in_mid_run_changes_nothing(tenant, undisturbed, dice):
    name = tenant.apply(small_llama(tenant, "operator-killed-tj", steps=STEPS))
    for _ in range(4):
        time.sleep(dice.uniform(0, 8))
        tenant.installation.kill_operator()
    status = tenant.until(name, "Complete", seconds=400, kind="trainingjob")
    assert (status.get("attempt", 0), status.get("restarts", 0)) == (0, 0)
    assert end_of(tenant, name) == undisturbed


@pytest.mark.slow
def test_a_lost_node_costs_the_steps_since_the_checkpoint(tenant, second_node, undisturbed):
    job = small_llama(tenant, "node-lost-tj", steps=STEPS)
    job["spec"]["workers"]["template"] = {"nodeSelector": second_node.selector}
    name = tenant.apply(job)
    wait_for_checkpoint(tenant, name)
    second_node.lose(tenant, name)
    status = tenant.until(name, "Complete", seconds=500, kind="trainingjob")
    assert status["attempt"] >= 1
    assert status["restarts"] == 0, "a disruption was charged"
    assert status["checkpoint"]["resumedFromStep"] >= 10
    assert end_of(tenant, name) == undisturbed


@pytest.mark.slow
def test_steps_that_grow_are_made_by_the_next_attempt(tenant):
    job = small_llama(tenant, "grows", steps=20)
    job["spec"]["workers"] = {**job["spec"]["workers"], "nodesPerReplica": 1, "gpusPerNode": 2}
    name = tenant.apply(job)
    tenant.until(name, "Running", seconds=120, kind="trainingjob")
    tenant.patch(name, {"steps": 30}, kind="trainingjob")
    status = tenant.until(name, "Complete", seconds=400, kind="trainingjob")
    assert status["restarts"] == 0
    assert end_of(tenant, name)["steps"] == 30


@pytest.mark.slow
def test_suspended_and_resumed_it_goes_on_and_ends_alike(tenant, undisturbed):
    name = tenant.apply(small_llama(tenant, "pauses-tj", steps=STEPS))
    tenant.until(name, "Running", seconds=120, kind="trainingjob")
    tenant.patch(name, {"suspend": True}, kind="trainingjob")
    tenant.until(name, "Suspended", kind="trainingjob")
    tenant.cluster.until(
        "its pods are gone",
        lambda: not [pod for pod in tenant.pods(name) if pod["status"]["phase"] in ("Running", "Pending")],
        seconds=90,
    )
    tenant.patch(name, {"suspend": False}, kind="trainingjob")
    tenant.until(name, "Complete", seconds=400, kind="trainingjob")
    assert end_of(tenant, name) == undisturbed
