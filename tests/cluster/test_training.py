"""A TrainingJob's gang on the real cluster: placed together, restarted together, from the last committed checkpoint.

The entry point is the stand-in (frazil_jobs.training.standin): a chain of hashes that tells whether each step was done once.
"""

from __future__ import annotations

import json

from gangjobs import training_job

from frazil_jobs.training.standin import expected


def end_of(tenant, name: str) -> dict:
    status = tenant.status(name, "trainingjob")
    prefix = str(status["outputs"]["uri"]).removeprefix("s3://frazil/results/")
    return json.loads(tenant.read(f"{prefix}final/state.json"))


def test_a_gang_that_loses_a_rank_goes_on_from_its_checkpoint_and_ends_alike(tenant):
    name = tenant.apply(training_job(tenant, "chain"))
    tenant.cluster.until(
        "a checkpoint is committed",
        lambda: tenant.status(name, "trainingjob").get("checkpoint", {}).get("step", 0) >= 10,
        seconds=120,
    )
    status = tenant.status(name, "trainingjob")
    assert status["scheduling"]["provider"] == "native-v1beta1"
    (lost,) = [pod for pod in tenant.pods(name) if pod["metadata"]["name"].startswith(f"{name}-a0-1-")]
    where = ["-n", tenant.namespace, "--grace-period=1", "--wait=false"]
    tenant.cluster.kubectl("delete", "pod", lost["metadata"]["name"], *where)
    status = tenant.until(name, "Complete", seconds=240, kind="trainingjob")
    assert status["attempt"] >= 1
    assert status["progress"]["step"] == 60
    assert status["checkpoint"]["step"] == 60
    assert status["checkpoint"]["resumedFromStep"] >= 10
    assert end_of(tenant, name) == {"step": 60, "state": expected(3, 60, 2)}


def test_steps_that_grow_are_made_by_the_next_attempt(tenant):
    job = training_job(tenant, "grows", steps=20)
    job["spec"]["workers"] = {**job["spec"]["workers"], "nodesPerReplica": 1, "gpusPerNode": 2}
    name = tenant.apply(job)
    tenant.until(name, "Running", seconds=120, kind="trainingjob")
    tenant.cluster.kubectl("patch", "tj", name, "-n", tenant.namespace, "--type=merge", "-p", '{"spec":{"steps":30}}')
    status = tenant.until(name, "Complete", seconds=240, kind="trainingjob")
    assert status["restarts"] == 0
    assert end_of(tenant, name) == {"step": 30, "state": expected(3, 30, 1)}


def test_suspended_and_resumed_it_goes_on(tenant):
    name = tenant.apply(training_job(tenant, "pauses", steps=40))
    tenant.until(name, "Running", seconds=120, kind="trainingjob")
    patch = ["patch", "tj", name, "-n", tenant.namespace, "--type=merge", "-p"]
    tenant.cluster.kubectl(*patch, '{"spec":{"suspend":true}}')
    tenant.until(name, "Suspended", kind="trainingjob")
    tenant.cluster.until(
        "its pods are gone",
        lambda: not [pod for pod in tenant.pods(name) if pod["status"]["phase"] in ("Running", "Pending")],
        seconds=90,
    )
    tenant.cluster.kubectl(*patch, '{"spec":{"suspend":false}}')
    tenant.until(name, "Complete", seconds=240, kind="trainingjob")
    assert end_of(tenant, name) == {"step": 40, "state": expected(3, 40, 2)}
