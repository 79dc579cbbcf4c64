"""The chart on a real API server: its own test, every object by server-side dry-run, and what an uninstall leaves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import redis
import yaml
from minio.error import S3Error
from testcluster.cluster import KubectlFailed
from testcluster.frazil import CHART, CHECKOUT, TENANTS

from frazil_jobs.api.load import load_job

SYSTEM = "frazil-system"
EXAMPLES = sorted(
    path
    for path in (CHECKOUT / "examples").rglob("*.yaml")
    if path.read_text().lstrip().startswith(("#", "apiVersion")) and "kind: " in path.read_text()
)

GOLDEN = sorted((CHECKOUT / "tests" / "operator" / "build" / "golden").glob("*.yaml"))
NOT_SERVED = ("scheduling.volcano.sh/v1beta1", "scheduling.x-k8s.io/v1alpha1")
CLUSTERS_OWN = ("priorityClassName", "runtimeClassName")
"""A pod that names one that isn't there is refused: they are the administrator's to make."""
EVERYWHERE = {"NetworkPolicy", "CustomResourceDefinition", "Deployment", "Secret", "ConfigMap", "Service", "Job", "Pod"}
RENDERED = {
    "everything that is bundled": (
        {
            "namespaces": ["team-a"],
            "operator": {"replicas": 2},
            "worker": {"replicas": 2},
            "grafanaDashboard": {"enabled": True},
        },
        {"PodDisruptionBudget", "Role", "RoleBinding", "ClusterRole"},
    ),
    "what others run, and a store that keeps": (
        {
            "images": {"pullSecrets": ["registry"]},
            "operator": {"nodeSelector": {"pool": "system"}, "tolerations": [{"key": "pool", "operator": "Exists"}]},
            "runAsUser": None,
            "redis": {
                "enabled": False,
                "externalUrl": "redis://control:word@redis.example.com:6379/0",
                "externalTenantUrls": {
                    one: f"redis://tenant-{one}:word@redis.cache.svc.cluster.local:6379/0" for one in TENANTS
                },
            },
            "minio": {"persistence": {"enabled": True, "size": "5Gi", "storageClass": "fast"}},
            "destinations": [
                {"name": "default"},
                {"name": "far", "endpoint": "https://10.1.2.3:9000", "existingSecret": "far", "customCa": True},
            ],
            "networkPolicy": {
                "dnsTo": [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
                "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
                "extraEgress": [{"to": [{"ipBlock": {"cidr": "192.168.1.0/24"}}], "ports": [{"port": 3128}]}],
            },
            "serviceMonitor": {"enabled": False},
        },
        {"PersistentVolumeClaim", "ClusterRole", "ClusterRoleBinding"},
    ),
}
"""Values, and kinds that they bring beside those that are always there."""
CANNOT_CHANGE = ("Job", "Pod", "PersistentVolumeClaim")
STRICTLY = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")


def test_helm_test_asks_every_part(tenant):
    ended = tenant.cluster.helm("test", "frazil", "-n", SYSTEM, "--logs", "--timeout", "120s")
    for part in ("operator: leading", "Redis: answers", "worker: inspects prompts", "destinations: 1 reachable"):
        assert part in ended.stdout, ended.stdout


@pytest.mark.parametrize(("values", "kinds"), RENDERED.values(), ids=RENDERED)
def test_every_rendered_object_is_accepted_strictly(tenant, values, kinds):
    cluster = tenant.cluster
    rendered = subprocess.run(
        [cluster.program("helm"), "template", "frazil", CHART, "-n", SYSTEM, "-f", "-"],
        input=json.dumps(tenant.installation.values(*TENANTS, **values)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert rendered.returncode == 0, rendered.stderr
    found = set()
    for document in yaml.safe_load_all(rendered.stdout):
        if not document:
            continue
        document["metadata"].setdefault("namespace", SYSTEM)
        if document["kind"] in CANNOT_CHANGE:  # their spec: another name
            document["metadata"]["name"] += "-dry"
        applied = cluster.kubectl(*STRICTLY, "--field-manager=helm", stdin=json.dumps(document), check=False)
        assert applied.returncode == 0, f"{document['kind']} {document['metadata']['name']}: {applied.stderr}"
        assert "Warning" not in applied.stderr, applied.stderr
        found.add(document["kind"])
    assert EVERYWHERE | kinds <= found


def test_a_crd_that_somebody_has_changed_is_told_by_an_upgrade_and_put_right_by_one_that_is_forced(tenant):
    cluster, release = tenant.cluster, tenant.installation
    crd = ["crd", "generationjobs.frazil.dev"]
    whole = cluster.get(*crd)["spec"]
    lost = [
        {"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/3"},
        {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/restarts"},
    ]
    cluster.kubectl("patch", *crd, "--type=json", "-p", json.dumps(lost))
    values = release.values(*TENANTS)
    try:
        assert cluster.get(*crd)["spec"] != whole
        with pytest.raises(
            KubectlFailed, match=r"conflict occurred while applying object /generationjobs\.frazil\.dev"
        ):
            release.install(values)
    finally:
        release.install(values, force=True)
    assert cluster.get(*crd)["spec"] == whole
    release.install(values)


@pytest.mark.slow
def test_a_tenant_that_is_taken_out_is_let_in_no_more(tenant, neighbour):
    release = tenant.installation
    broker, word = neighbour.broker(), neighbour.secret("frazil-redis")["url"]
    store = neighbour.client("read")

    def listed() -> list:
        return list(store.list_objects(bucket_name="frazil", prefix=f"results/{neighbour.namespace}/"))

    assert broker.ping()
    listed()
    broker.close()
    release.install(release.values(tenant.namespace))
    try:
        with pytest.raises(S3Error, match="InvalidAccessKeyId"):
            listed()
        with pytest.raises(redis.AuthenticationError):
            broker.ping()
        held = tenant.secret("frazil-credentials", namespace=SYSTEM)
        assert not [key for key in held if neighbour.namespace in key]
        assert tenant.broker().ping()
    finally:
        release.install(release.values(*TENANTS))
    assert neighbour.secret("frazil-redis")["url"] != word


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_object_of_a_job_is_accepted_strictly_and_its_pods_where_restricted_is_enforced(tenant, path: Path):
    """As the operator makes them (the golden files of tests/operator/build)."""
    cluster = tenant.cluster
    kinds = []
    for document in yaml.safe_load_all(path.read_text()):
        if document["apiVersion"] in NOT_SERVED:
            continue  # not served here: see test_gang_providers.py
        document["metadata"]["namespace"] = tenant.namespace
        wanted = [document]
        if document["kind"] == "Job":
            template = document["spec"]["template"]
            metadata = {**template["metadata"], "name": "probe", "namespace": tenant.namespace}
            spec = {name: value for name, value in template["spec"].items() if name not in CLUSTERS_OWN}
            wanted.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        for thing in wanted:
            applied = cluster.kubectl(*STRICTLY, stdin=json.dumps(thing), check=False)
            assert applied.returncode == 0, f"{thing['kind']} {thing['metadata']['name']}: {applied.stderr}"
            assert "Warning" not in applied.stderr, applied.stderr
            kinds.append(thing["kind"])
    assert {"ConfigMap", "Job", "Pod"} <= set(kinds)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_the_example_jobs_are_accepted_strictly(tenant, path: Path):
    job = load_job(path)
    if job.kind == "GenerationJob" and (
        job.spec.model.uri.startswith(("./", "file:")) or "/" not in job.spec.model.uri
    ):
        pytest.skip("a job for one machine: it names a folder beside its file")
    ended = tenant.cluster.kubectl(
        "create", "-f", path, "-n", tenant.namespace, "--dry-run=server", "--validate=strict", check=False
    )
    assert ended.returncode == 0, ended.stderr
