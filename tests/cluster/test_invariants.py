"""The twelve invariants against the real API server, each from a real bug of another operator (issue numbers are theirs)."""

from __future__ import annotations

import json
import time

import pytest

SYSTEM = "frazil-system"


def child(tenant, name: str) -> dict | None:
    """The one child of a job; None while it has none, or two while one is going."""
    found = tenant.cluster.list("jobs", namespace=tenant.namespace, selector=f"frazil.dev/job-name={name}")
    return found[0] if len(found) == 1 else None


def writes(tenant) -> dict[str, float]:
    """The operator's own count of its writes, by verb and resource."""
    pods = tenant.cluster.list("pods", namespace=SYSTEM, selector="app.kubernetes.io/component=operator")
    (pod,) = [one for one in pods if not one["metadata"].get("deletionTimestamp")]
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
    found = {}
    for line in tenant.cluster.kubectl("get", "--raw", path).stdout.splitlines():
        if line.startswith("frazil_api_writes_total"):
            labels, value = line.rsplit(" ", 1)
            if 'resource="lease"' not in labels:
                found[labels] = float(value)
    return found


@pytest.fixture(scope="module")
def waiting(tenant):
    """A job whose pods fit nowhere: it stays as it is."""
    name = tenant.apply(tenant.job("waiting", workers={"accelerator": "example.com/none"}))
    tenant.until(name, "Starting")
    tenant.cluster.until("its child is there", lambda: child(tenant, name))
    yield name
    tenant.remove(name)


def test_1_a_finished_job_whose_child_vanished_makes_nothing_again(tenant, finished):
    """Trainer #2981, #3737."""
    selector = f"frazil.dev/job-name={finished}"
    tenant.cluster.kubectl("delete", "jobs", "-n", tenant.namespace, "-l", selector, "--wait=true")
    tenant.cluster.kubectl("annotate", "gj", finished, "-n", tenant.namespace, f"touched={time.time()}", "--overwrite")
    time.sleep(4)
    assert tenant.cluster.list("jobs", namespace=tenant.namespace, selector=selector) == []
    assert tenant.status(finished)["phase"] == "Complete"


def test_2_deleting_children_does_not_reset_the_count_of_restarts(tenant):
    """Trainer #3779."""
    job = tenant.small_job("restarts", workers={"nodesPerReplica": 2, "gpusPerNode": 1, "image": "frazil.test/base:2"})
    job["spec"]["failurePolicy"] = {"retriesPerShard": 20, "maxRestarts": 50}
    job["spec"]["workers"]["template"] = {"env": [{"name": "NONE", "value": "1"}]}
    job["spec"]["sampling"] = {**job["spec"]["sampling"], "scheduler": "DDIMScheduler"}
    job["spec"]["parallelism"] = {"timeoutSeconds": 10}
    name = tenant.apply(job)
    tenant.until(name, "Running", seconds=120)
    pod = next(pod for pod in tenant.pods(name) if pod["status"]["phase"] == "Running")
    tenant.cluster.kubectl(
        "delete", "pod", pod["metadata"]["name"], "-n", tenant.namespace, "--grace-period=1", "--wait=false"
    )
    tenant.cluster.until("a restart was charged", lambda: tenant.status(name).get("restarts", 0) >= 1, seconds=90)
    before = tenant.status(name)["restarts"]
    tenant.cluster.kubectl("delete", "jobs", "-n", tenant.namespace, "-l", f"frazil.dev/job-name={name}", "--wait=true")
    status = tenant.until(name, "Complete", seconds=240)
    assert status["restarts"] >= before


def test_3_suspended_and_idle_is_left_in_peace(tenant, waiting):
    """KubeRay #4416."""
    name = tenant.apply(tenant.job("asleep", suspend=True))
    tenant.until(name, "Suspended")
    time.sleep(2)
    before = writes(tenant)
    time.sleep(6)
    assert writes(tenant) == before
    tenant.remove(name)


def test_4_what_is_heard_in_any_order_gives_the_same_status(tenant, finished):
    """dask #968: a late handler wrote an old phase over a new one. Here the operator starts anew amid finished jobs and
    hears of everything at once, children first or last."""
    before = tenant.status(finished)
    tenant.cluster.kubectl("delete", "pod", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--wait=true")
    tenant.cluster.kubectl("rollout", "status", "deployment/frazil-operator", "-n", SYSTEM, "--timeout=60s")
    time.sleep(4)
    assert tenant.status(finished) == before


def test_5_a_job_that_is_gone_is_not_tried_again(tenant):
    """dask #810."""
    name = tenant.apply(tenant.job("gone", workers={"accelerator": "example.com/none"}))
    tenant.cluster.until("its child is there", lambda: child(tenant, name))
    tenant.remove(name)
    time.sleep(2)
    before = writes(tenant)
    time.sleep(5)
    assert writes(tenant) == before


def test_6_a_job_of_the_same_name_waits_for_the_children_of_the_last(tenant):
    """Volcano #1241."""
    name = "again"
    tenant.apply(tenant.job(name, workers={"accelerator": "example.com/none"}))
    first = tenant.cluster.until("its child is there", lambda: child(tenant, name))
    where = ["job", first["metadata"]["name"], "-n", tenant.namespace]
    tenant.cluster.kubectl("patch", *where, "--type=merge", "-p", '{"metadata":{"finalizers":["frazil.test/hold"]}}')
    tenant.remove(name)
    tenant.apply(tenant.job(name, workers={"accelerator": "example.com/none"}))
    tenant.cluster.until("it says why it waits", lambda: "earlier job" in json.dumps(tenant.status(name)))
    tenant.cluster.kubectl("patch", *where, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')

    def anew() -> bool:
        found = child(tenant, name)
        uid = tenant.get(name)["metadata"]["uid"]
        return (
            found is not None
            and found["metadata"]["labels"]["frazil.dev/job-uid"] == uid
            and found["metadata"]["uid"] != first["metadata"]["uid"]
        )

    tenant.cluster.until("the child of the new job is there", anew)
    tenant.remove(name)


def test_7_what_a_queue_puts_into_a_child_stays(tenant):
    """Kueue #1726. There is no Kueue here (it does not build on this machine): kubectl plays its hand, in the order in
    which Kueue writes: node selector and tolerations while suspended, then suspend: false."""
    name = tenant.apply(tenant.job("queued", scheduling={"queueName": "gpus"}))
    tenant.until(name, "Queued")
    found = tenant.cluster.until("its child is there", lambda: child(tenant, name))
    assert found["spec"]["suspend"] is True
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    toleration = {"key": "pool", "operator": "Exists"}
    given = {"nodeSelector": {"example.com/pool": "none"}, "tolerations": [toleration]}
    where = ["job", found["metadata"]["name"], "-n", tenant.namespace, "--type=merge", "-p"]
    tenant.cluster.kubectl("patch", *where, json.dumps({"spec": {"template": {"spec": given}}}))
    tenant.cluster.kubectl("patch", *where, json.dumps({"spec": {"suspend": False, "parallelism": 1}}))
    tenant.until(name, "Starting")
    tenant.cluster.kubectl("scale", "gj", name, "-n", tenant.namespace, "--replicas=2")
    tenant.cluster.until("it was scaled", lambda: child(tenant, name)["spec"]["parallelism"] == 2)
    after = child(tenant, name)["spec"]
    assert after["suspend"] is False
    assert after["template"]["spec"]["nodeSelector"] == given["nodeSelector"]
    assert toleration in after["template"]["spec"]["tolerations"]
    tenant.remove(name)


def test_8_the_status_does_not_grow_with_the_prompts(tenant):
    """Argo's largest class of complaints. A hundred thousand prompts, from a file in the store."""
    rows = b"".join(b'{"prompt": "a"}\n' for _ in range(100_000))
    key = f"{tenant.namespace}/prompts/many.jsonl"
    tenant.store.put_bytes(key, rows, content_type="application/jsonl")
    sizes = {}
    for name, spec in (
        ("few", {}),
        ("many", {"prompts": {"inline": None, "uri": f"s3://frazil/results/{key}", "perShard": 2}}),
    ):
        job = tenant.job(name, workers={"accelerator": "example.com/none"}, **spec)
        job["spec"]["prompts"] = {key: value for key, value in job["spec"]["prompts"].items() if value is not None}
        tenant.apply(job)
        tenant.cluster.until("its child is there", lambda name=name: child(tenant, name), seconds=60)
        tenant.until(name, "Starting", seconds=60)
        sizes[name] = len(json.dumps(tenant.status(name)))
        if name == "many":
            assert tenant.status(name)["shards"]["total"] == 50_000
        tenant.remove(name)
    assert abs(sizes["many"] - sizes["few"]) < 300


def test_9_a_deleted_rank_restarts_its_gang(tenant, reference):
    """JobSet #574."""
    name = tenant.apply(tenant.small_job("rank-deleted", workers={"nodesPerReplica": 2, "gpusPerNode": 1}))
    tenant.until(name, "Running", seconds=120)
    pods = [pod for pod in tenant.pods(name) if pod["status"]["phase"] == "Running"]
    tenant.cluster.kubectl(
        "delete", "pod", pods[-1]["metadata"]["name"], "-n", tenant.namespace, "--grace-period=1", "--wait=false"
    )
    status = tenant.until(name, "Complete", seconds=300)
    assert status["attempt"] >= 1
    made = tenant.images(name)
    assert len(made) == 2
    assert made.items() <= reference.items()


def test_10_with_the_operator_off_a_retained_job_is_deleted_at_once(tenant):
    name = tenant.apply(tenant.job("retained", workers={"accelerator": "example.com/none"}))
    tenant.cluster.until("its child is there", lambda: child(tenant, name))
    scale = ["scale", "deployment/frazil-operator", "-n", SYSTEM]
    tenant.cluster.kubectl(*scale, "--replicas=0")
    try:
        tenant.remove(name)
        assert tenant.cluster.kubectl("get", "gj", name, "-n", tenant.namespace, check=False).returncode
    finally:
        tenant.cluster.kubectl(*scale, "--replicas=1")
        tenant.cluster.kubectl("rollout", "status", "deployment/frazil-operator", "-n", SYSTEM, "--timeout=60s")


def test_11_gang_scheduling_that_is_not_served_is_a_condition(tenant):
    """Here it is served: the condition says by whom. Without any, and with others: test_gang_providers.py."""
    job = tenant.job("gang", workers={"nodesPerReplica": 2, "gpusPerNode": 1, "accelerator": "example.com/none"})
    name = tenant.apply(job)

    def told() -> dict | None:
        conditions = {one["type"]: one for one in tenant.status(name).get("conditions", [])}
        found = conditions.get("GangScheduled")
        return found if found and found["reason"] == "Unschedulable" else None

    assert tenant.cluster.until("the condition says why", told, seconds=60)["status"] == "False"
    assert tenant.status(name)["scheduling"]["provider"] == "native-v1beta1"
    assert not any(pod["spec"].get("nodeName") for pod in tenant.pods(name))
    tenant.remove(name)


def test_12_a_steady_state_is_never_written(tenant, waiting, finished):
    time.sleep(3)
    before = writes(tenant)
    for round_ in range(10):
        tenant.cluster.kubectl(
            "annotate", "gj", waiting, finished, "-n", tenant.namespace, f"touched={round_}", "--overwrite"
        )
        time.sleep(0.3)
    time.sleep(3)
    assert writes(tenant) == before
