"""Jobs that end badly, or well enough: by real pods and the real Job controller, with the reason in the status."""

from __future__ import annotations

import json

import pytest
from testcluster.cluster import CLAIM
from testcluster.tenant import PROMPTS, Tenant

BROKEN = {"template": {"env": [{"name": "PYTHONHOME", "value": "/nowhere"}]}}
"""The GPU container can't begin: it ends with exit code 1."""
GANG = {"nodesPerReplica": 2, "gpusPerNode": 1}


def prompts_with_a_bad_row(tenant) -> dict:
    """Three prompts in a shard each; the second names a picture that isn't there, which its pod finds."""
    rows = [{"prompt": prompt} for prompt in PROMPTS[:3]]
    rows[1] |= {"images": {"image": "none.png"}}
    key = f"{tenant.namespace}/prompts/bad-row.jsonl"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    tenant.store.put_bytes(key, lines.encode(), content_type="application/jsonl")
    return {"uri": f"s3://frazil/results/{key}", "perShard": 1}


def job_with_a_bad_row(tenant, name: str, **spec) -> dict:
    job = tenant.job(name, workers={"replicas": 2}, **spec)
    job["spec"]["prompts"] = prompts_with_a_bad_row(tenant)
    return job


def condition(status: dict, kind: str) -> dict:
    return {one["type"]: one for one in status["conditions"]}[kind]


def failure(tenant, name: str) -> dict:
    """Why a job has failed, once it has."""
    status = tenant.until(name, "Failed")
    assert status["completionTime"]
    return condition(status, "Failed")


def tries(tenant, name: str, *, shard: int = 0) -> int:
    """Pods that were made for a shard."""
    return sum(pod["metadata"]["name"].startswith(f"{name}-a0-{shard}-") for pod in tenant.pods(name))


def pods_that_run(tenant, name: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in tenant.pods(name) if pod["status"]["phase"] in ("Pending", "Running")]


def limit(tenant, name: str, deadline: str) -> None:
    """Give a job a deadline that has passed already."""
    tenant.patch(name, {deadline: 1})


def wait_for(tenant, name: str, what: str) -> None:
    """As a person or a pipeline waits."""
    tenant.cluster.kubectl(
        "wait", f"--for={what}", f"generationjob/{name}", "-n", tenant.namespace, "--timeout=90s", seconds=100
    )


def test_a_pod_that_says_78_fails_the_job_at_once(tenant, failed):
    """`fetch` finds no model; the inspection before it looked at the prompts only."""
    wait_for(tenant, failed, "condition=Failed")
    found = failure(tenant, failed)
    assert (found["status"], found["reason"]) == ("True", "BadConfiguration")
    assert found["message"].startswith("fetch ended with exit code 78: spec.model.uri: ")
    assert tries(tenant, failed) == 1
    events = tenant.cluster.list("events", namespace=tenant.namespace)
    uid = tenant.get(failed)["metadata"]["uid"]  # a cluster that was kept has events of the last time
    told = [one for one in events if one["involvedObject"].get("uid") == uid and one["reason"] == "BadConfiguration"]
    assert [one["type"] for one in told] == ["Warning"]


def test_a_pod_that_says_65_fails_its_shard_at_once_and_that_the_job(tenant):
    name = tenant.apply(job_with_a_bad_row(tenant, "bad-row", failurePolicy={"retriesPerShard": 2}))
    found = failure(tenant, name)
    assert found["reason"] == "MaxFailedShards"
    assert "1 of 3 shards have failed, 0 may: 1" in found["message"]
    assert "fetch ended with exit code 65" in found["message"]
    assert "none.png" in found["message"]
    assert tenant.status(name)["shards"]["failed"] == "1"
    assert tries(tenant, name, shard=1) == 1
    tenant.cluster.until("no pod runs on", lambda: not pods_that_run(tenant, name))


@pytest.mark.slow
def test_a_job_that_may_lose_a_shard_ends_well_without_it(tenant):
    spec = {
        "failurePolicy": {"retriesPerShard": 0, "maxFailedShards": 1},
        "successPolicy": {"minStoredPercent": 60},
    }
    name = tenant.apply(job_with_a_bad_row(tenant, "well-enough", **spec))
    status = tenant.until(name, "Complete")
    found = condition(status, "Complete")
    assert (found["reason"], found["message"]) == ("SuccessPolicyMet", "2 of 3 outputs are stored")
    assert (status["shards"]["completed"], status["shards"]["failed"]) == ("0,2", "1")
    assert (status["progress"]["summary"], status["progress"]["failed"]) == ("2/3", 1)
    assert sorted(tenant.images(name)) == ["000000-00.png", "000002-00.png"]


@pytest.mark.slow
def test_a_job_that_may_lose_a_shard_and_no_output_fails_when_the_others_are_stored(tenant):
    policy = {"retriesPerShard": 0, "maxFailedShards": 1}
    name = tenant.apply(job_with_a_bad_row(tenant, "not-enough", failurePolicy=policy))
    found = failure(tenant, name)
    assert found["reason"] == "MaxFailedShards"
    assert "2 of 3 outputs are stored" in found["message"]
    assert len(tenant.images(name)) == 2


@pytest.mark.slow
def test_a_rule_of_the_job_outranks_what_its_code_would_do(tenant):
    """78 would fail the job at once. Here the pipeline takes no such argument, which only the GPU container can know."""
    policy = {"retriesPerShard": 5, "rules": [{"onExitCodes": [78], "action": "FailShard"}]}
    sampling = {"extra": {"no_such_argument": 1}}
    name = tenant.apply(tenant.small_job("by-rule", sampling=sampling, failurePolicy=policy))
    found = failure(tenant, name)
    assert found["reason"] == "MaxFailedShards"
    assert "compute ended with exit code 78: spec.sampling.extra" in found["message"]
    assert tenant.status(name)["shards"]["failed"] == "0"
    assert tries(tenant, name) == 1


@pytest.mark.slow
def test_a_shard_has_the_tries_that_it_may_have(tenant):
    name = tenant.apply(tenant.small_job("tries", workers=BROKEN, failurePolicy={"retriesPerShard": 1}))
    found = failure(tenant, name)
    assert found["reason"] == "MaxFailedShards"
    assert "compute ended with exit code 1" in found["message"]
    assert tries(tenant, name) == 2


@pytest.mark.slow
def test_a_gang_has_the_restarts_that_it_may_have(tenant):
    policy = {"retriesPerShard": 5, "maxRestarts": 1}
    name = tenant.apply(tenant.small_job("restarts-spent", workers={**GANG, **BROKEN}, failurePolicy=policy))
    found = failure(tenant, name)
    assert found["reason"] == "MaxRestartsExceeded"
    assert (tenant.status(name)["attempt"], tenant.status(name)["restarts"]) == (1, 1)


@pytest.mark.slow
def test_a_job_whose_time_is_over_fails_and_what_is_stored_stays(tenant, reference):
    name = tenant.apply(tenant.job("too-long"))
    tenant.cluster.until(
        "a picture is stored", lambda: tenant.status(name).get("progress", {}).get("stored", 0) > 0, seconds=120
    )
    limit(tenant, name, "activeDeadlineSeconds")
    wait_for(tenant, name, "condition=Failed")
    found = failure(tenant, name)
    assert found["reason"] == "DeadlineExceeded"
    assert found["message"].startswith("spec.activeDeadlineSeconds: 1 s have passed")
    tenant.cluster.until("its pods have gone", lambda: not pods_that_run(tenant, name))
    stored = tenant.images(name)
    assert 0 < len(stored) < len(reference)
    assert stored.items() <= reference.items()


def test_a_job_whose_pods_never_start_fails_in_time_and_says_why(tenant):
    name = tenant.apply(tenant.small_job("never-starts", workers={"image": "frazil.test/none:1"}))

    def told() -> bool:
        return condition(tenant.status(name), "PodsReady")["reason"] == "ImagePull"

    tenant.cluster.until("the status says what is missing", told)
    limit(tenant, name, "preRunningDeadlineSeconds")
    found = failure(tenant, name)
    assert found["reason"] == "PreRunningDeadlineExceeded"
    assert "frazil.test/none:1" in found["message"]
    tenant.cluster.until("its pods have gone", lambda: not pods_that_run(tenant, name))


def test_a_job_whose_time_to_live_is_over_is_deleted_with_its_pods(tenant):
    nowhere = f"s3://frazil/results/{tenant.namespace}/models/none"
    job = tenant.small_job("short-lived", model={"uri": nowhere}, ttlSecondsAfterFinished=5)
    name = tenant.apply(job)
    wait_for(tenant, name, "condition=Failed")
    wait_for(tenant, name, "delete")
    selector = f"frazil.dev/job-name={name}"
    tenant.cluster.until(
        "its children are gone",
        lambda: not tenant.cluster.list("jobs,pods,configmaps", namespace=tenant.namespace, selector=selector),
    )


def test_a_namespace_that_is_deleted_goes_with_the_job_at_work_in_it(tenant):
    """Kubernetes by itself waits for ever: for a pod of each index in place of the one that it has taken away."""
    cluster, namespace = tenant.cluster, "leaves"
    cluster.namespace(namespace)
    cluster.environment_in(namespace)
    try:
        job = tenant.small_job("stays")
        cluster.apply({**job, "metadata": {"name": "stays", "namespace": namespace}})
        here = Tenant(tenant.installation, namespace)

        def told() -> dict | None:
            found = condition(here.status("stays"), "PodsReady")
            return found if found["reason"] == "ContainerNotMade" else None

        found = cluster.until("the status says what the namespace lacks", told, seconds=120)
        assert found["message"].endswith(
            "the chart gives it to the namespaces of its value `tenants`: is this one there?"
        )
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
        gone = ["get", "namespace", namespace]
        cluster.until("it is gone", lambda: cluster.kubectl(*gone, check=False).returncode != 0, seconds=240)
    finally:
        cluster.kubectl("delete", "generationjobs", "--all", "-n", namespace, "--timeout=60s", check=False)
        cluster.kubectl("delete", "namespace", namespace, "--wait=false", check=False)
        cluster.kubectl("delete", "persistentvolume", f"{CLAIM}-{namespace}", "--wait=false", check=False)
