"""The chart on a real API server: its own test, every object by server-side dry-run, and what an uninstall leaves."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from testcluster.frazil import CHART, CHECKOUT

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
STRICTLY = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")


def test_helm_test_asks_every_part(tenant):
    ended = tenant.cluster.helm("test", "frazil", "-n", SYSTEM, "--logs", "--timeout", "120s")
    for part in ("operator: leading", "Redis: answers", "worker: inspects prompts", "destinations: 1 reachable"):
        assert part in ended.stdout, ended.stdout


def test_every_rendered_object_is_accepted_strictly(tenant):
    cluster = tenant.cluster
    everything = {"operator": {"replicas": 2}, "worker": {"replicas": 2}, "grafanaDashboard": {"enabled": True}}
    rendered = subprocess.run(
        [cluster.bin / "helm", "template", "frazil", CHART, "-n", SYSTEM, "-f", "-"],
        input=json.dumps({**tenant.installation.values("team-a", "team-b", **everything), "namespaces": ["team-a"]}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert rendered.returncode == 0, rendered.stderr
    names = []
    for document in yaml.safe_load_all(rendered.stdout):
        if not document:
            continue
        document["metadata"].setdefault("namespace", SYSTEM)
        if document["kind"] in ("Job", "Pod"):  # a Job's and a Pod's spec can't change: another name
            document["metadata"]["name"] += "-dry"
        applied = cluster.kubectl(*STRICTLY, stdin=json.dumps(document), check=False)
        assert applied.returncode == 0, f"{document['kind']} {document['metadata']['name']}: {applied.stderr}"
        assert "Warning" not in applied.stderr, applied.stderr
        names.append(document["kind"])
    kinds = {
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Role",
        "ClusterRole",
        "CustomResourceDefinition",
        "Deployment",
        "Job",
    }
    assert kinds <= set(names)


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
