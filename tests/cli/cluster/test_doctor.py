"""`frazil doctor` before a real API server, broken in one way after another."""

import json

import pytest
import yaml

from frazil_cli.cluster.observe import ping
from frazil_cli.cluster.observed import Probe, Unknown
from frazil_operator.settings import Settings


@pytest.fixture
def system(plane):
    """An installation as the chart leaves it, with pods that kwok pretends."""
    namespace = plane.namespace()
    labels = {"app.kubernetes.io/name": "frazil", "app.kubernetes.io/component": "operator"}
    meta = {"name": "frazil-operator", "namespace": namespace, "labels": labels}
    settings = Settings(lease_namespace=namespace, destinations=[{"uri": "s3://frazil/results"}]).document()
    pod = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "operator", "image": "operator"}]},
    }
    plane.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "data": {"operator.yaml": yaml.safe_dump(settings)},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod},
        },
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "frazil-operator", "namespace": namespace},
            "spec": {
                "holderIdentity": "operator-1",
                "leaseDurationSeconds": 3600,
                "renewTime": "2026-11-24T00:00:00.000000Z",
            },
        },
    )
    _renew(plane, namespace)
    plane.kubectl.kubectl(
        "wait",
        "deployment",
        "frazil-operator",
        "-n",
        namespace,
        "--for=condition=Available",
        "--timeout=60s",
        seconds=90,
    )
    return namespace


def _renew(plane, namespace):
    from datetime import UTC, datetime

    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    patch = json.dumps({"spec": {"renewTime": now}})
    plane.kubectl.kubectl("patch", "lease", "frazil-operator", "-n", namespace, "--type=merge", "-p", patch)


@pytest.fixture
def examine(plane, namespace, system, frazil):
    """Call the command; exit code, and findings by check."""
    plane.tenant(namespace)
    frazil.env = {"KUBECONFIG": str(plane.kubeconfig)}

    def call(*options):
        ended = frazil("doctor", "-n", namespace, "--system-namespace", system, "--json", *options)
        document = json.loads(ended.stdout)
        return ended.returncode, {finding["check"]: finding for finding in document["findings"]}

    return call


def states(findings):
    return {name: finding["state"] for name, finding in findings.items()}


def wrong(findings):
    return [name for name, finding in findings.items() if finding["state"] == "wrong"]


def test_a_cluster_that_is_well_is_told_so_with_broker_and_store_asked(examine):
    code, findings = examine()
    assert set(states(findings).values()) == {"ok"}, findings
    assert code == 0
    assert findings["services"]["message"] == "the broker and the store 'default' answer"
    assert findings["version"]["message"] == "the definitions are those of this version"


def test_on_a_screen_each_check_is_a_line_with_its_mark(plane, namespace, system, frazil):
    frazil.env = {"KUBECONFIG": str(plane.kubeconfig)}
    ended = frazil("doctor", "-n", namespace, "--system-namespace", system)
    assert ended.returncode == 1
    assert "✓ definitions" in ended.stdout
    assert "✗ credentials" in ended.stdout
    assert "`tenants` of the chart's values" in ended.stdout
    assert "1 of 10 checks found something wrong" in ended.stdout


def test_credentials_that_open_nothing_are_told_apart_from_a_store_that_is_away(plane, namespace, examine):
    plane.tenant(namespace, accessKey="nobody")
    plane.secret(namespace, "frazil-redis", {"url": "redis://nobody:word@broker.frazil-system.svc:6379/0"})
    code, findings = examine()
    assert code == 1
    assert wrong(findings) == ["credentials"]
    details = " ".join(findings["credentials"]["details"])
    assert "the store 'default' refuses them: " in details
    assert "the broker refuses them: WRONGPASS" in details


def test_a_store_that_is_away_is_found_through_its_service(plane, namespace, examine):
    plane.tenant(namespace, public="http://127.0.0.1:1")
    code, findings = examine()
    assert (code, wrong(findings)) == (1, ["services"])
    assert "the store 'default' does not answer" in findings["services"]["details"][0]


def test_a_pod_that_the_namespace_refuses_is_found_by_the_trial(plane, namespace, examine):
    """A LimitRange that lets no pod of a job in."""
    meta = {"name": "small", "namespace": namespace}
    limits = {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}
    plane.kubectl.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": limits})
    plane.kubectl.until("the limit holds", lambda: wrong(examine("--no-probe")[1]) == ["admission"], seconds=60)
    _, findings = examine("--no-probe")
    assert "maximum memory usage per Container is 64Mi" in findings["admission"]["details"][0]


def test_what_the_job_controller_is_refused_by_pod_security_is_told(plane, namespace, examine):
    plane.kubectl.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c"}]}}
    plane.job(namespace, "ice")
    meta = {"name": "ice-a0", "namespace": namespace}
    plane.kubectl.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": pod}})
    plane.kubectl.until("pods are refused", lambda: wrong(examine("--no-probe")[1]) == ["admission"], seconds=60)
    _, findings = examine("--no-probe")
    assert "violates PodSecurity" in findings["admission"]["details"][0]


def test_a_quota_of_gpus_is_found(plane, namespace, examine):
    meta = {"name": "gpus", "namespace": namespace}
    hard = {"requests.nvidia.com/gpu": "0"}
    plane.kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}})
    plane.kubectl.until("the quota holds", lambda: wrong(examine("--no-probe")[1]) == ["quota"], seconds=60)
    _, findings = examine("--no-probe")
    assert "exceeded quota: gpus" in findings["quota"]["details"][0]


def test_a_job_that_asks_for_more_than_a_node_has_is_found(plane, namespace, examine):
    plane.job(namespace, "ice", workers={"gpusPerNode": 8}, parallelism={"conditioning": 2, "sequence": 4})
    code, findings = examine("--no-probe")
    assert (code, wrong(findings)) == (1, ["accelerators"])
    assert "ice asks for 8 nvidia.com/gpu a pod, and the largest node has 4" in findings["accelerators"]["message"]


def test_an_operator_that_is_gone_is_found(plane, system, examine):
    plane.kubectl.kubectl("scale", "deployment", "frazil-operator", "-n", system, "--replicas=0")
    _, findings = examine("--no-probe")
    assert findings["operator"]["message"] == "the operator is scaled to 0"
    plane.kubectl.kubectl("delete", "deployment", "frazil-operator", "-n", system)
    plane.kubectl.kubectl("delete", "lease", "frazil-operator", "-n", system)
    _, findings = examine("--no-probe")
    assert "no operator has ever taken the Lease" in findings["operator"]["message"]
    plane.kubectl.kubectl("delete", "configmap", "frazil-operator", "-n", system)
    _, findings = examine("--no-probe")
    assert findings["operator"]["message"] == "there is no operator on this cluster"


def test_who_may_look_at_nothing_is_told_what_could_not_be_seen(plane, namespace, examine):
    jobs = {"apiGroups": ["frazil.dev"], "resources": ["generationjobs", "trainingjobs"], "verbs": ["get", "list"]}
    code, findings = examine("--kubeconfig", str(plane.person(namespace, jobs)))
    assert code == 0
    assert states(findings)["credentials"] == states(findings)["accelerators"] == "unknown"
    assert "you may not see nodes" in findings["accelerators"]["message"]


def test_who_may_not_even_see_jobs_is_told_so(plane, namespace, frazil):
    frazil.env = {"KUBECONFIG": str(plane.person(namespace))}
    ended = frazil("doctor", "-n", namespace)
    assert ended.returncode == 78
    assert 'cannot list resource "generationjobs"' in ended.stderr


def test_a_broker_is_asked_in_its_own_protocol(redis_server):
    port = redis_server.port
    assert ping("127.0.0.1", port, redis_server.url) == Probe(ok=True)
    refused = ping("127.0.0.1", port, "redis://nobody:w%20ord@x:1/0")
    assert isinstance(refused, Probe)
    assert (refused.ok, refused.denied) == (False, True)
    assert isinstance(ping("127.0.0.1", port, "rediss://x:1/0"), Unknown)
    with pytest.raises(OSError):
        ping("127.0.0.1", 1, "redis://x:1/0")
