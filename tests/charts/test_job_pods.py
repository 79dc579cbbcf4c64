"""The pods of jobs under the settings that the chart renders: their security, their network, the Secrets they name."""

from __future__ import annotations

import pytest
import yaml
from networkpolicies import Peer, matches, refusals
from operator_world import UID, generation_job, training_job
from podsecurity import problems

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_operator.build.children import gang_job, shards_job
from frazil_operator.build.labels import Owner
from frazil_operator.settings import parse_settings

from .conftest import NAMESPACE

PIN = {"sha256": "0" * 64, "shards": 3, "count": 10}
VALUES = {
    "plain": {"tenants": ["team"]},
    "OpenShift": {"tenants": ["team"], "jobs": {"runAsUser": None}},
    "a mounted environment": {
        "tenants": ["team"],
        "environmentClaim": {"claimName": "env", "mountPath": "/opt/env", "python": "/opt/env/bin/python"},
    },
    "a store with a certificate of its own": {
        "tenants": ["team"],
        "destinations": [
            {"endpoint": "https://s3.example.com:9443", "existingSecret": "far", "customCa": True, "bucket": "results"}
        ],
    },
}


def settings_of(objects):
    (text,) = [
        one["data"]["operator.yaml"]
        for one in objects
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "frazil-operator"
    ]
    return parse_settings(yaml.safe_load(text))


def templates(objects):
    """The pod templates of a sharded job, of a gang that makes a shard, and of a training gang."""
    settings = settings_of(objects)
    shards = GenerationJob.model_validate(generation_job())
    gang = GenerationJob.model_validate(generation_job(workers={"nodesPerReplica": 2}))
    training = TrainingJob.model_validate(training_job())
    owner = Owner("GenerationJob", "team", "ice", UID)
    jobs = {
        "shards": shards_job(shards, owner, attempt=0, pin=PIN, parallelism=2, settings=settings),
        "gang": gang_job(gang, owner, attempt=0, config_map="ice-a0", settings=settings, pin=PIN, shard=1),
        "training": gang_job(
            training, Owner("TrainingJob", "team", "dit", UID), attempt=0, config_map="dit-a0", settings=settings
        ),
    }
    return {name: job["spec"]["template"] for name, job in jobs.items()}


def pods(objects):
    """One pod of each, as an end of a connection."""
    return {
        name: Peer(name, "team", template["metadata"]["labels"], f"10.244.1.{number}")
        for number, (name, template) in enumerate(templates(objects).items(), start=10)
    }


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_they_are_restricted(helm, values):
    for name, template in templates(helm.objects(values)).items():
        spec = template["spec"]
        assert problems(spec) == [], name
        assert spec["automountServiceAccountToken"] is False
        assert all(
            container["securityContext"]["readOnlyRootFilesystem"]
            for container in (*spec["initContainers"], *spec["containers"])
        )


@pytest.mark.parametrize("user", [65532, 1000, None])
def test_they_run_as_the_user_that_the_values_say(helm, user):
    for template in templates(helm.objects({"jobs": {"runAsUser": user}})).values():
        assert template["spec"]["securityContext"].get("runAsUser") == user


def test_every_secret_that_they_name_is_given_to_their_namespace(helm):
    objects = helm.objects({"tenants": ["team"]})
    given = {
        one["metadata"]["name"]: set(one["stringData"])
        for one in objects
        if one["kind"] == "Secret" and one["metadata"]["namespace"] == "team"
    }
    asked = [
        variable["valueFrom"]["secretKeyRef"]
        for template in templates(objects).values()
        for container in (*template["spec"]["initContainers"], *template["spec"]["containers"])
        for variable in container["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    ]
    assert len(asked) >= 3 * 7
    assert [one for one in asked if one["key"] not in given.get(one["name"], ())] == []


def test_the_policies_take_hold_of_all_of_them(helm):
    objects = helm.objects({"tenants": ["team"]})
    policies = [
        one["spec"]["podSelector"]
        for one in objects
        if one["kind"] == "NetworkPolicy" and one["metadata"]["namespace"] == "team"
    ]
    for name, pod in pods(objects).items():
        assert any(matches(selector, pod.labels) for selector in policies), name


COMPONENT = {"app.kubernetes.io/name": "frazil", "app.kubernetes.io/instance": "frazil"}
REDIS, MINIO, OPERATOR = (
    Peer(name, NAMESPACE, {**COMPONENT, "app.kubernetes.io/component": name}, "10.244.0.9")
    for name in ("redis", "minio", "operator")
)
DNS = Peer("CoreDNS", "kube-system", {"k8s-app": "kube-dns"}, "10.244.0.2")
API = Peer("the API server", address="192.168.0.5")
HUB = Peer("the hub", address="203.0.113.7")
NEIGHBOUR = Peer("another's pod", "team", {"app": "web"}, "10.244.3.3")


@pytest.mark.parametrize("name", ["shards", "gang", "training"])
def test_they_reach_what_they_work_with_and_nothing_else(helm, name):
    objects = helm.objects({"tenants": ["team"]})
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    pod = pods(objects)[name]
    for target, port, protocol in [(DNS, 53, "UDP"), (REDIS, 6379, "TCP"), (MINIO, 9000, "TCP"), (HUB, 443, "TCP")]:
        assert refusals(policies, pod, target, port, protocol) == ()
    for target, port in [(API, 443), (API, 6443), (OPERATOR, 8080), (MINIO, 9001), (NEIGHBOUR, 80), (HUB, 80)]:
        # Where a plugin may read a block either way, a refusal has to hold in both.
        assert refusals(policies, pod, target, port, blocks_match_pods=True), f"{target.name} {port}"
    assert refusals(policies, NEIGHBOUR, pod, 29500, blocks_match_pods=True)
    assert refusals(policies, OPERATOR, pod, 29500, blocks_match_pods=True)


@pytest.mark.parametrize("name", ["gang", "training"])
def test_the_nodes_of_a_gang_reach_each_other_on_every_port(helm, name):
    objects = helm.objects({"tenants": ["team"]})
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    pod = pods(objects)[name]
    for port in (29500, 40123):
        assert refusals(policies, pod, pod, port) == ()
