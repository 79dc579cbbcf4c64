"""Who may do what, tried for real: the operator with its own token, a tenant with what its pods hold."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
import redis
from minio import Minio, MinioAdmin
from minio.commonconfig import CopySource
from minio.credentials.providers import StaticProvider
from minio.deleteobjects import DeleteObject
from minio.error import MinioAdminException, S3Error

SYSTEM = "frazil-system"
NEEDED = {
    "list generationjobs": ["get", "generationjobs", "-A"],
    "list trainingjobs": ["get", "trainingjobs", "-A"],
    "list jobs": ["get", "jobs", "-A"],
    "list pods": ["get", "pods", "-A"],
    "list podgroups": ["get", "podgroups.scheduling.k8s.io", "-A"],
    "create a job": ["create", "job", "probe", "--image=x", "-n", "team-a", "--dry-run=server"],
    "create a config map": ["create", "configmap", "probe", "-n", "team-a", "--dry-run=server"],
    "create a service": [
        "create",
        "service",
        "clusterip",
        "probe",
        "--clusterip=None",
        "-n",
        "team-a",
        "--dry-run=server",
    ],
}
REFUSED = {
    "read a secret": ["get", "secret", "frazil-redis", "-n", "team-a"],
    "list secrets": ["get", "secrets", "-A"],
    "create a secret": ["create", "secret", "generic", "probe", "-n", "team-a", "--dry-run=server"],
    "create a pod": ["run", "probe", "--image=x", "-n", "team-a", "--dry-run=server"],
    "run in a pod": ["exec", "deployment/frazil-redis", "-n", SYSTEM, "--", "true"],
    "forward a port": ["get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/none/portforward"],
    "read a pod's log": ["get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/none/log"],
    "list nodes": ["get", "nodes"],
    "delete a node": ["delete", "node", "node-0", "--dry-run=server"],
    "list namespaces": ["get", "namespaces"],
    "create a namespace": ["create", "namespace", "probe", "--dry-run=server"],
    "list config maps": ["get", "configmaps", "-A"],
    "delete a config map": ["delete", "configmap", "frazil-operator", "-n", SYSTEM, "--dry-run=server"],
    "list services": ["get", "services", "-A"],
    "delete a service": ["delete", "service", "frazil-redis", "-n", SYSTEM, "--dry-run=server"],
    "list events": ["get", "events", "-A"],
    "create a generationjob": ["create", "-f", "JOB", "--dry-run=server"],
    "read roles": ["get", "clusterroles"],
    "bind a role": ["create", "clusterrolebinding", "p", "--clusterrole=cluster-admin", "--user=x", "--dry-run=server"],
    "read deployments": ["get", "deployments", "-A"],
    "scale a deployment": ["scale", "deployment/frazil-operator", "-n", SYSTEM, "--replicas=3"],
    "read CRDs": ["get", "crds"],
    "read volumes": ["get", "persistentvolumes"],
    "read claims": ["get", "persistentvolumeclaims", "-A"],
    "read another lease": ["get", "lease", "other", "-n", SYSTEM],
    "list leases": ["get", "leases", "-A"],
    "impersonate": ["get", "pods", "-A", "--as=admin"],
    "make a token": ["create", "token", "default", "-n", "team-a"],
}


@pytest.fixture(scope="module")
def as_operator(tenant, tmp_path_factory):
    """kubectl with the operator's own token, and nothing else."""
    cluster = tenant.cluster
    token = cluster.kubectl("create", "token", "frazil-operator", "-n", SYSTEM).stdout.strip()
    folder = tmp_path_factory.mktemp("operator")
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json").stdout)
    config["users"] = [{"name": "admin", "user": {"token": token}}]
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    job = folder / "job.json"
    job.write_text(json.dumps(tenant.job("by-the-operator")))

    def run(arguments):
        given = [str(job) if one == "JOB" else one for one in arguments]
        return cluster.kubectl(f"--kubeconfig={path}", *given, check=False)

    return run


@pytest.mark.parametrize("arguments", NEEDED.values(), ids=NEEDED)
def test_the_operator_may_do_what_it_needs(as_operator, arguments):
    ended = as_operator(arguments)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_the_operator_may_do_nothing_else(as_operator, arguments):
    ended = as_operator(arguments)
    assert ended.returncode != 0, ended.stdout
    assert "orbidden" in ended.stderr, ended.stderr


@pytest.fixture(scope="module")
def theirs(neighbour):
    """A file of the neighbour."""
    key = f"{neighbour.namespace}/ads-00000000/images/0.png"
    neighbour.store.put_bytes(key, b"theirs", content_type="image/png")
    return f"results/{key}"


def denied(call) -> bool:
    with pytest.raises(S3Error) as caught:
        call()
    return caught.value.code == "AccessDenied"


def put(store: Minio, key: str) -> None:
    store.put_object(bucket_name="frazil", object_name=key, data=io.BytesIO(b"x"), length=1)


@pytest.mark.parametrize("right", ["read", "write"])
def test_a_tenant_can_neither_read_nor_change_results_of_another(tenant, theirs, right):
    store = tenant.client(right)
    assert denied(lambda: store.get_object(bucket_name="frazil", object_name=theirs))
    assert denied(lambda: put(store, theirs))
    assert denied(lambda: put(store, "results/team-b/new"))
    assert denied(lambda: put(store, "outside"))
    assert denied(lambda: store.remove_object(bucket_name="frazil", object_name=theirs))
    assert denied(lambda: list(store.list_objects(bucket_name="frazil", prefix="results/team-b/", recursive=True)))
    assert denied(lambda: list(store.list_objects(bucket_name="frazil", prefix="results/team-", recursive=True)))


def roundabout_ways(store: Minio, admin: MinioAdmin, theirs: str) -> dict[str, Callable[[], object]]:
    """What somebody tries who can't read a neighbour's file by its name."""
    own = "results/team-a/stolen"
    all_may = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::frazil/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [all_may]})
    return {
        "copy it": lambda: store.copy_object(
            bucket_name="frazil", object_name=own, source=CopySource(bucket_name="frazil", object_name=theirs)
        ),
        "look at it": lambda: store.stat_object(bucket_name="frazil", object_name=theirs),
        "let everybody read": lambda: store.set_bucket_policy(bucket_name="frazil", policy=policy),
        "read the policy": lambda: store.get_bucket_policy(bucket_name="frazil"),
        "make a bucket": lambda: store.make_bucket(bucket_name="mine"),
        "remove the bucket": lambda: store.remove_bucket(bucket_name="frazil"),
        "list all": lambda: list(store.list_objects(bucket_name="frazil", recursive=True)),
        "list users": admin.user_list,
        "make a user": lambda: admin.user_add("another", "its-long-secret"),
        "change a user": lambda: admin.user_disable("frazil-default-write-team-b"),
        "take a policy": lambda: admin.attach_policy(["consoleAdmin"], user="frazil-default-read-team-a"),
    }


@pytest.mark.parametrize("right", ["read", "write"])
def test_a_tenant_finds_no_way_around(tenant, theirs, right):
    config = tenant.config(right)
    credentials = StaticProvider(config.access_key, config.secret_key.get_secret_value())
    admin = MinioAdmin(endpoint=config.endpoint.removeprefix("http://"), credentials=credentials, secure=False)
    store = tenant.client(right)
    for what, call in roundabout_ways(store, admin, theirs).items():
        with pytest.raises((S3Error, MinioAdminException)) as caught:
            call()
        assert "AccessDenied" in str(caught.value), f"{what}: {caught.value}"
    several = store.remove_objects(bucket_name="frazil", delete_object_list=[DeleteObject(theirs)])
    assert [error.code for error in several] == ["AccessDenied"]
    anybody = Minio(endpoint=config.endpoint.removeprefix("http://"), secure=False)
    assert denied(lambda: anybody.get_object(bucket_name="frazil", object_name=theirs))


def test_a_tenant_reads_its_own_and_removes_nothing_of_it(tenant):
    key = f"results/{tenant.namespace}/own/a.txt"
    reading, writing = tenant.client("read"), tenant.client("write")
    put(writing, key)
    assert reading.get_object(bucket_name="frazil", object_name=key).read() == b"x"
    assert denied(lambda: put(reading, key))
    assert denied(lambda: writing.remove_object(bucket_name="frazil", object_name=key))
    assert denied(lambda: reading.remove_object(bucket_name="frazil", object_name=key))


def test_a_tenants_user_of_the_broker_touches_no_key_of_another(tenant):
    client = tenant.broker()
    client.set("frazil:team-a:probe", "1", ex=10)
    no = redis.exceptions.NoPermissionError
    for call in (
        lambda: client.get("frazil:team-b:probe"),
        lambda: client.set("frazil:team-b:probe", "1"),
        lambda: client.lpush("frazil.control", "a task"),
        lambda: client.get("celery-task-meta-x"),
        lambda: client.keys("*"),
        lambda: client.scan(),
        lambda: client.randomkey(),
        lambda: client.dbsize(),
        lambda: client.flushall(),
        lambda: client.config_get("*"),
        lambda: client.publish("frazil:team-b:x", "1"),
    ):
        with pytest.raises(no):
            call()


def test_when_deleted_removes_what_is_the_jobs_own_and_nothing_else(tenant, theirs):
    kept = tenant.apply(tenant.small_job("kept-results"))
    gone = tenant.apply(tenant.small_job("gone-results", output={"whenDeleted": "Delete"}))
    tenant.until(kept, "Complete")
    status = tenant.until(gone, "Complete")
    prefix = str(status["outputs"]["uri"]).removeprefix("s3://frazil/results/")
    assert list(tenant.store.list(prefix))
    tenant.remove(gone)
    assert list(tenant.store.list(prefix)) == []
    assert len(tenant.images(kept)) == 2
    tenant.remove(kept)
    assert tenant.read(theirs.removeprefix("results/")) == b"theirs"


def test_when_deleted_does_not_follow_a_prefix_to_a_neighbour(tenant, neighbour, theirs):
    """A job that names a neighbour's folder lands below its own namespace, whatever it writes."""
    job = tenant.small_job("sly", output={"whenDeleted": "Delete", "prefix": "team-b/ads-00000000"})
    name = tenant.apply(job)
    status = tenant.until(name, "Complete")
    assert str(status["outputs"]["uri"]).startswith("s3://frazil/results/team-a/team-b/ads-00000000/sly-")
    tenant.remove(name)
    assert neighbour.read(theirs.removeprefix("results/")) == b"theirs"
    for prefix in ("../team-b", "/team-b", "a/../../team-b", ".."):
        sly = tenant.small_job("slier", output={"whenDeleted": "Delete", "prefix": prefix})
        with pytest.raises(Exception, match="output"):
            tenant.apply(sly)


def test_the_worker_refuses_to_remove_what_is_not_a_prefix_of_the_job(tenant, theirs):
    """Asked past the operator: with the control user's rights, as nobody but the control plane can."""
    from frazil_jobs.outputs.celery_app import CONTROL_QUEUE, DELETE_OUTPUTS, make_app

    address = tenant.cluster.get("service", "frazil-redis", namespace=SYSTEM)["spec"]["clusterIP"]
    url = tenant.secret("frazil-control", namespace=SYSTEM)["redis-url"]
    app = make_app(url.replace("frazil-redis.frazil-system.svc", address))
    asked = app.send_task(
        DELETE_OUTPUTS,
        kwargs={
            "namespace": "team-a",
            "destination": "default",
            "prefix": "team-b/ads-00000000",
            "uid": "00000000-0000-0000-0000-000000000000",
        },
        queue=CONTROL_QUEUE,
        ignore_result=False,
    )
    answer = asked.get(timeout=30)
    assert answer["error"]["exitCode"] == 78
    assert tenant.read(theirs.removeprefix("results/")) == b"theirs"
