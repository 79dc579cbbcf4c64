"""The whole tour: installed by Helm, applied, waited for, fetched, and byte-equal to `frazil run` of the same file."""

from __future__ import annotations

import json

import pytest
from frazil_command import Frazil
from testcluster.frazil import TENANTS
from testcluster.tenant import PROMPTS


def test_a_job_from_apply_to_fetched_pictures_is_byte_equal_to_a_local_run(tenant, reference, tmp_path):
    name = tenant.apply(tenant.job("tour", workers={"replicas": 2}))
    tenant.cluster.kubectl(
        "wait",
        "--for=condition=Complete",
        f"generationjob/{name}",
        "-n",
        tenant.namespace,
        "--timeout=150s",
        seconds=170,
    )
    status = tenant.status(name)
    assert status["progress"]["summary"] == "6/6"
    assert status["shards"]["completedCount"] == 3
    assert tenant.images(name) == reference
    frazil = Frazil(tmp_path)
    config = tenant.config("read")
    frazil.env = {
        "FRAZIL_S3_ACCESS_KEY": config.access_key,
        "FRAZIL_S3_SECRET_KEY": config.secret_key.get_secret_value(),
    }
    address = status["outputs"]["uri"].rstrip("/")
    ended = frazil("fetch", address, "--endpoint", config.endpoint, "--to", "here", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["complete"]
    assert sorted(path.name for path in (tmp_path / "here" / "images").iterdir()) == sorted(reference)
    assert (tmp_path / "here" / "index.html").exists()


def test_the_columns_say_what_a_person_wants_to_know(tenant):
    tenant.until("tour", "Complete")
    lines = tenant.cluster.kubectl("get", "gj", "tour", "-n", tenant.namespace).stdout.splitlines()
    assert lines[0].split()[:4] == ["NAME", "PHASE", "STORED", "READY"]
    assert lines[1].split()[:3] == ["tour", "Complete", "6/6"]
    said = tenant.cluster.kubectl("explain", "generationjob.spec.parallelism.mode").stdout
    assert "Exact (the default) changes nothing" in said


def test_two_pods_of_one_gpu_each_make_the_same_bytes(tenant, reference):
    name = tenant.apply(tenant.small_job("two-pods", workers={"nodesPerReplica": 2, "gpusPerNode": 1}))
    status = tenant.until(name, "Complete", seconds=240)
    assert status["scheduling"]["provider"] == "native-v1beta1"
    made = tenant.images(name)
    assert len(made) == 2
    assert made.items() <= reference.items()


def test_every_pod_of_a_job_is_placed_by_its_gpus_and_holds_no_credential_in_its_gpu_container(tenant):
    tenant.until("tour", "Complete")
    for pod in tenant.pods("tour"):
        (compute,) = pod["spec"]["containers"]
        assert compute["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert not any("valueFrom" in one and "secretKeyRef" in one["valueFrom"] for one in compute["env"])
        secrets = {volume["name"] for volume in pod["spec"]["volumes"] if "secret" in volume}
        assert not secrets & {mount["name"] for mount in compute["volumeMounts"]}
        assert not any("serviceaccount" in mount["mountPath"] for mount in compute["volumeMounts"])


def child(tenant, name: str) -> dict:
    """The one Job of a job."""
    (found,) = tenant.children(name)
    return found


def environment(pod: dict) -> dict[str, str]:
    """Of the GPU container."""
    (compute,) = pod["spec"]["containers"]
    return {one["name"]: one.get("value", "") for one in compute["env"]}


def test_an_upgrade_in_the_middle_of_a_job_does_not_disturb_it(tenant, reference):
    """The operator is another one afterwards, and one that would make other pods: for jobs to come it does."""
    release, shards = tenant.installation, 5
    name = tenant.apply(tenant.job("upgraded", prompts={"inline": [*PROMPTS, *PROMPTS[:4]], "perShard": 2}))
    tenant.until(name, "Running")
    before = {pod["metadata"]["uid"] for pod in tenant.pods(name)}
    credentials, job = tenant.secret("frazil-default-write"), child(tenant, name)["metadata"]["uid"]
    operators = {pod["metadata"]["uid"] for pod in release.pods("operator")}
    try:
        release.install(release.values(*TENANTS, jobs={"computeEnv": {"UPGRADED": "1"}}))
        assert child(tenant, name)["status"].get("succeeded", 0) < shards, "the job was over before the upgrade was"
        assert not operators & {pod["metadata"]["uid"] for pod in release.pods("operator")}, "nothing was upgraded"
        assert tenant.secret("frazil-default-write") == credentials
        after = tenant.apply(tenant.small_job("after-the-upgrade"))
        (pod,) = tenant.cluster.until("the next job has a pod", lambda: tenant.pods(after))
        assert environment(pod)["UPGRADED"] == "1"
        status = tenant.until(name, "Complete", seconds=300)
    finally:
        release.install(release.values(*TENANTS))
    assert (status.get("attempt", 0), child(tenant, name)["metadata"]["uid"]) == (0, job)
    assert reference.items() <= tenant.images(name).items()
    pods = tenant.pods(name)
    assert before <= {pod["metadata"]["uid"] for pod in pods}
    assert len(pods) == shards, "a shard was made twice"
    assert not any("UPGRADED" in environment(pod) for pod in pods)


@pytest.mark.parametrize("kind", ["generationjobs", "trainingjobs"])
def test_the_crds_are_ones_that_helm_keeps(cluster, installation, kind):
    crd = cluster.get("crd", f"{kind}.frazil.dev")
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
