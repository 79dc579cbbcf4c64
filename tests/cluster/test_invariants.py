"""The twelve invariants against the real API server, each from a real bug of another operator (issue numbers are theirs)."""

from __future__ import annotations

import json
import time

import pytest
from testcluster.metrics import reconciles, versions, writes
from testcluster.tenant import PROMPTS

SYSTEM = "frazil-system"
OPERATOR = "app.kubernetes.io/component=operator"


def child(tenant, name: str) -> dict | None:
    """The one child of a job; None while it has none, or two while one is going."""
    found = tenant.children(name)
    return found[0] if len(found) == 1 else None


def settled(tenant, *names: str) -> dict[str, dict]:
    """The status of jobs once nothing moves in it any more. Rates end by themselves when nothing is made for a minute."""

    def look() -> dict[str, dict]:
        found = {name: tenant.status(name) for name in names}
        for status in found.values():
            for passing in ("imagesPerSecond", "estimatedRemainingSeconds", "lastUpdateTime"):
                status.get("progress", {}).pop(passing, None)
        return found

    def still() -> dict[str, dict] | None:
        before = look()
        time.sleep(4)
        return before if look() == before else None

    return dict(tenant.cluster.until(f"{', '.join(names)} stay as they are", still, seconds=90))


def placed(tenant, *names: str) -> list[bool]:
    """Whether each pod of jobs that has not ended has a node."""
    pods = [pod for name in names for pod in tenant.pods(name)]
    return [bool(pod["spec"].get("nodeName")) for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]


def restart_operator(tenant, *, jobs: int) -> None:
    """Another operator, until it has looked at so many jobs."""
    (old,) = tenant.installation.pods("operator")
    tenant.cluster.kubectl("delete", "pod", old["metadata"]["name"], "-n", SYSTEM, "--wait=true")
    tenant.cluster.kubectl("rollout", "status", "deployment/frazil-operator", "-n", SYSTEM, "--timeout=60s")
    tenant.cluster.until("the new one has looked at the jobs", lambda: reconciles(tenant) >= jobs)


@pytest.fixture(scope="module")
def waiting(tenant):
    """A job whose pods fit nowhere: it stays as it is."""
    name = tenant.apply(tenant.job("waiting", workers={"accelerator": "example.com/none"}))
    tenant.until(name, "Starting")
    tenant.cluster.until("its child is there", lambda: child(tenant, name))
    yield name
    tenant.remove(name)


@pytest.mark.parametrize("ended", ["finished", "failed"])
def test_1_a_finished_job_whose_child_vanished_makes_nothing_again(tenant, ended, request):
    """Trainer #2981, #3737."""
    name = request.getfixturevalue(ended)
    before = tenant.status(name)
    selector = f"frazil.dev/job-name={name}"
    tenant.cluster.kubectl("delete", "jobs", "-n", tenant.namespace, "-l", selector, "--wait=true")
    looks = reconciles(tenant)
    tenant.cluster.kubectl("annotate", "gj", name, "-n", tenant.namespace, f"touched={time.time()}", "--overwrite")
    tenant.cluster.until("the operator has looked at it", lambda: reconciles(tenant) > looks)
    time.sleep(3)
    assert tenant.children(name) == []
    assert tenant.status(name) == before


def test_2_deleting_children_does_not_reset_the_count_of_restarts(tenant):
    """Trainer #3779."""
    job = tenant.small_job("restarts", workers={"nodesPerReplica": 2, "gpusPerNode": 1})
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


def test_3_suspended_and_idle_is_left_in_peace(tenant):
    """KubeRay #4416: asked for again every few seconds, for ever."""
    name = tenant.apply(tenant.job("asleep", suspend=True))
    tenant.until(name, "Suspended")
    time.sleep(2)
    before, looks, there = writes(tenant), reconciles(tenant), versions(tenant, name)
    time.sleep(7)
    assert writes(tenant) == before
    assert versions(tenant, name) == there
    assert reconciles(tenant) - looks <= 1, "more than the resync, which looks at one job in so long"
    tenant.remove(name)


def test_4_what_is_heard_in_any_order_gives_the_same_status(own_cluster, tenant, finished):
    """dask #968: a late handler wrote an old phase over a new one. Here the operator starts anew, again and again, amid a
    finished job, shards of which some are done and one waits, and a gang that was restarted and waits: it hears of
    everything at once, children first or last."""
    shards = tenant.apply(tenant.job("half-way", prompts={"inline": PROMPTS * 3, "perShard": 2}))
    workers = {"nodesPerReplica": 2, "gpusPerNode": 1}
    gang = "restarted"
    try:
        tenant.cluster.until(
            "a shard is done", lambda: tenant.status(shards)["shards"]["completedCount"] >= 1, seconds=120
        )
        tenant.apply(tenant.small_job(gang, workers=workers, imagesPerPrompt=12, sampling={"steps": 1000}))
        tenant.until(gang, "Running", seconds=120)
        own_cluster.gpus(0)
        rank = tenant.pods(gang)[0]["metadata"]["name"]
        tenant.cluster.kubectl("delete", "pod", rank, "-n", tenant.namespace, "--grace-period=1", "--wait=false")
        tenant.cluster.until("the next attempt waits", lambda: tenant.status(gang).get("attempt", 0) == 1, seconds=90)
        tenant.cluster.until("the next shard waits", lambda: placed(tenant, shards, gang) == [False] * 3, seconds=90)
        before = settled(tenant, finished, shards, gang)
        assert [before[name]["phase"] for name in (finished, shards, gang)] == ["Complete", "Running", "Restarting"]
        assert before[gang]["restarts"] == 1
        for _ in range(2):
            restart_operator(tenant, jobs=3)
            assert settled(tenant, finished, shards, gang) == before
    finally:
        own_cluster.gpus(4)
        tenant.remove(shards)
        tenant.remove(gang)


def test_5_a_job_that_is_gone_is_not_tried_again(tenant):
    """dask #810."""
    name = tenant.apply(tenant.job("gone", workers={"accelerator": "example.com/none"}))
    tenant.cluster.until("its child is there", lambda: child(tenant, name))
    tenant.remove(name)
    selector = f"frazil.dev/job-name={name}"

    def left() -> list[dict]:
        return tenant.cluster.list("jobs,pods", namespace=tenant.namespace, selector=selector)

    tenant.cluster.until("its children are gone", lambda: not left())
    time.sleep(2)
    before, looks = writes(tenant), reconciles(tenant)
    time.sleep(5)
    assert writes(tenant) == before
    assert reconciles(tenant) - looks <= 1, "more than the resync, which looks at one job in so long"
    assert left() == []


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
        tenant.cluster.kubectl("wait", "--for=delete", "pod", "-n", SYSTEM, "-l", OPERATOR, "--timeout=60s", seconds=70)
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


def test_11_no_pod_of_a_gang_is_bound_until_all_fit(own_cluster, tenant):
    """There is one GPU, and the gang needs one for each of its two pods. A job of one pod would be placed at once."""
    cluster = own_cluster

    cluster.gpus(1)
    try:
        gang = tenant.apply(tenant.small_job("whole", workers={"nodesPerReplica": 2, "gpusPerNode": 1}))
        cluster.until("its pods are there", lambda: len(tenant.pods(gang)) == 2)

        def unschedulable() -> bool:
            found = {one["type"]: (one["status"], one["reason"]) for one in tenant.status(gang)["conditions"]}
            return found.get("GangScheduled") == ("False", "Unschedulable")

        cluster.until("the condition says so", unschedulable)
        single = tenant.small_job("fits", workers={"gpusPerNode": 1}, parallelism={"conditioning": 1})
        one = tenant.apply(single)
        cluster.until("one pod has room", lambda: placed(tenant, one) == [True])
        tenant.remove(one)
        cluster.until("the room is free again", lambda: not tenant.pods(one))
        for _ in range(10):
            assert placed(tenant, gang) == [False, False]
            time.sleep(0.5)
        assert unschedulable()
        cluster.gpus(2)
        cluster.until("both are placed", lambda: placed(tenant, gang) == [True, True])
        status = tenant.until(gang, "Running", seconds=120)
        assert status["scheduling"]["provider"] == "native-v1beta1"
        assert not unschedulable()
    finally:
        cluster.gpus(4)
        tenant.remove("whole")
        tenant.remove("fits")


def test_12_a_steady_state_is_never_written(tenant, waiting, finished):
    time.sleep(3)
    before, looks = writes(tenant), reconciles(tenant)
    there = versions(tenant, waiting, finished)
    for round_ in range(10):
        for name in (waiting, finished):
            touch = ["annotate", "gj", name, "-n", tenant.namespace, f"touched={round_}", "--overwrite"]
            there[name] = tenant.cluster.kubectl(*touch, "-o", "jsonpath={.metadata.resourceVersion}").stdout
    time.sleep(3)
    assert reconciles(tenant) - looks >= 10, "it was hardly looked at"
    assert writes(tenant) == before
    assert versions(tenant, waiting, finished) == there
