"""Volcano and the coscheduling plugin, by what an API server serves: a control plane of its own without Kubernetes' gangs.

Neither scheduler is here (they don't build on this machine). The CRDs below carry the same group, version and fields, so
that what the operator writes is checked, and a hand plays the scheduler's part. Kubernetes' own gangs are tested for real
in test_tour.py and test_invariants.py.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from gangjobs import training_job
from servers import RealRedis
from testcluster import binaries
from testcluster.cluster import Cluster
from testcluster.controlplane import ControlPlane

from frazil_jobs.api.crd import crd
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob

QUANTITIES = {"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": True}}
CONDITIONS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            name: {"type": "string"} for name in ("type", "status", "reason", "message", "lastTransitionTime")
        },
    },
}
PROVIDERS = {
    "volcano": (
        "scheduling.volcano.sh",
        "v1beta1",
        {
            "minMember": {"type": "integer"},
            "minResources": QUANTITIES,
            "queue": {"type": "string"},
            "priorityClassName": {"type": "string"},
        },
    ),
    "coscheduling": (
        "scheduling.x-k8s.io",
        "v1alpha1",
        {
            "minMember": {"type": "integer"},
            "minResources": QUANTITIES,
            "scheduleTimeoutSeconds": {"type": "integer"},
        },
    ),
}


def podgroup_crd(group: str, version: str, fields: dict) -> dict:
    status = {"type": "object", "properties": {"phase": {"type": "string"}, "conditions": CONDITIONS}}
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": fields}, "status": status},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"podgroups.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "podgroups", "singular": "podgroup", "kind": "PodGroup"},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


class Here:
    """The job builder of the other tests wants a tenant; here is only a namespace."""

    namespace = "team"


@pytest.fixture(scope="module")
def plain(cluster, tmp_path_factory):
    """An API server that serves no gang scheduling at all."""
    state = tmp_path_factory.mktemp("plain")
    plane = ControlPlane(state, binaries.folder(), port=6463, etcd_port=23990, gangs=False)
    plane.start()
    found = Cluster(state)
    try:
        found.until(
            "the API server answers", lambda: found.kubectl("get", "--raw", "/readyz", check=False).returncode == 0
        )
        found.apply(crd(GenerationJob), crd(TrainingJob))
        found.namespace(Here.namespace)
        yield found
    finally:
        for name in reversed(plane.processes.names()):
            plane.processes.stop(name, seconds=5)


@pytest.fixture
def operator(plain, tmp_path):
    """The operator as a process of this machine, until the test ends."""
    settings = tmp_path / "operator.yaml"
    settings.write_text(
        yaml.safe_dump(
            {
                "namespaces": [Here.namespace],
                "leaseNamespace": Here.namespace,
                "leaseSeconds": 5,
                "destinations": [{"uri": "s3://frazil/results"}],
            }
        )
    )
    redis = RealRedis(tmp_path / "redis")
    redis.start()
    with (tmp_path / "operator.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "frazil_operator", "--config", settings, "--port", "18090"],
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KUBECONFIG": str(plain.kubeconfig)}
            | {"FRAZIL_REDIS_URL": redis.url},
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            code = process.wait(timeout=30)
            redis.kill()
            assert code == 0, (tmp_path / "operator.log").read_text()[-3000:]


def condition(plain, name: str) -> tuple[str, str] | None:
    status = plain.get("trainingjob", name, namespace=Here.namespace).get("status", {})
    found = {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions", [])}
    return found.get("GangScheduled")


def until_condition(plain, name: str, wanted: tuple[str, str]) -> None:
    plain.until(f"GangScheduled is {wanted}", lambda: condition(plain, name) == wanted, seconds=40)


def test_without_any_provider_a_condition_says_so(plain, operator):
    for wanted, jobs in (("Auto", 1), ("Required", 0)):
        name = f"none-{wanted.lower()}"
        plain.apply(training_job(Here, name, scheduling={"gang": wanted}))
        until_condition(plain, name, ("False", "ProviderUnavailable"))
        found = plain.list("jobs", namespace=Here.namespace, selector=f"frazil.dev/job-name={name}")
        assert len(found) == jobs


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_that_is_served_gets_a_group_of_the_whole_gang(plain, provider, request):
    group, version, fields = PROVIDERS[provider]
    definition = podgroup_crd(group, version, fields)
    plain.apply(definition)
    plain.kubectl("wait", "--for=condition=Established", f"crd/podgroups.{group}", "--timeout=30s")
    request.getfixturevalue("operator")
    kind = f"podgroups.{group}"
    try:
        plain.apply(training_job(Here, provider))
        made = plain.until(
            "the group is there",
            lambda: plain.list(kind, namespace=Here.namespace, selector=f"frazil.dev/job-name={provider}"),
        )
        assert made[0]["spec"]["minMember"] == 2
        assert made[0]["spec"]["minResources"] == {"nvidia.com/gpu": "2"}
        (job,) = plain.list("jobs", namespace=Here.namespace, selector=f"frazil.dev/job-name={provider}")
        template, name = job["spec"]["template"], made[0]["metadata"]["name"]
        if provider == "volcano":
            assert template["spec"]["schedulerName"] == "volcano"
            assert template["metadata"]["annotations"]["scheduling.k8s.io/group-name"] == name
        else:
            assert template["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"] == name
        status = plain.get("trainingjob", provider, namespace=Here.namespace)["status"]
        assert status["scheduling"]["provider"] == provider
        if provider == "volcano":
            no = {"type": "Unschedulable", "status": "True", "reason": "NotEnoughResources", "message": "0/2 fit"}
            patch = json.dumps({"status": {"conditions": [no]}})
            where = [kind, name, "-n", Here.namespace, "--subresource=status", "--type=merge", "-p", patch]
            plain.kubectl("patch", *where)
            until_condition(plain, provider, ("False", "Unschedulable"))
    finally:
        plain.kubectl("delete", "trainingjob", provider, "-n", Here.namespace, "--timeout=30s")
        plain.kubectl("delete", "crd", f"podgroups.{group}", "--timeout=30s")
