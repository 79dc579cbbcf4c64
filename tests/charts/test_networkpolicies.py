"""Which connections the chart's NetworkPolicies let pass, by a table. No plugin is asked: the policies are read."""

from __future__ import annotations

import pytest
from networkpolicies import Peer, matches, passes

SYSTEM = "frazil-system"


def part(component: str) -> Peer:
    labels = {"app.kubernetes.io/name": "frazil", "app.kubernetes.io/instance": "frazil"}
    return Peer(component, SYSTEM, {**labels, "app.kubernetes.io/component": component})


def rank(namespace: str, job: str = "one") -> Peer:
    return Peer(
        f"rank of {job}",
        namespace,
        {"frazil.dev/managed": "true", "frazil.dev/job-uid": job, "frazil.dev/restarts": "0"},
    )


def shard(namespace: str) -> Peer:
    """A pod that works alone: it belongs to no gang."""
    return Peer("shard", namespace, {"frazil.dev/managed": "true", "frazil.dev/job-uid": "two"})


def outside(address: str) -> Peer:
    return Peer(address, address=address)


OPERATOR, WORKER, REDIS, MINIO = part("operator"), part("worker"), part("redis"), part("minio")
PROVISION, TEST = part("provision"), part("test")
STRANGER = Peer("a pod of somebody else", "team-a", {"app": "web"})
DNS = Peer("CoreDNS", "kube-system", {"k8s-app": "kube-dns"}, "10.244.0.2")
RESOLVERS = {
    "a pod of a neighbour": Peer("a resolver of a neighbour", "team-b", {"k8s-app": "kube-dns"}, "10.244.1.9"),
    "another pod of kube-system": Peer("etcd", "kube-system", {"component": "etcd"}, "10.244.0.3"),
    "a host in the private network": outside("192.168.1.53"),
    "a cache on each node": outside("169.254.20.10"),
    "the cloud's metadata service": outside("169.254.169.254"),
    "the internet": outside("203.0.113.53"),
}
"""What listens on port 53 and is not the cluster's DNS."""
API = outside("10.96.0.1")
HUB = outside("203.0.113.7")
METADATA = outside("169.254.169.254")
PROMETHEUS = Peer("Prometheus", "monitoring", {"app": "prometheus"})

VALUES = {
    "tenants": ["team-a", "team-b"],
    "destinations": [
        {"name": "default"},
        {"name": "far", "endpoint": "https://s3.example.com:9443", "existingSecret": "far"},
    ],
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    },
}
PASS = [
    (OPERATOR, DNS, 53, "UDP"),
    (OPERATOR, DNS, 53, "TCP"),
    (OPERATOR, API, 443, "TCP"),
    (OPERATOR, API, 6443, "TCP"),
    (OPERATOR, REDIS, 6379, "TCP"),
    (WORKER, REDIS, 6379, "TCP"),
    (WORKER, MINIO, 9000, "TCP"),
    (WORKER, DNS, 53, "UDP"),
    (WORKER, HUB, 9443, "TCP"),
    (PROVISION, MINIO, 9000, "TCP"),
    (TEST, OPERATOR, 8080, "TCP"),
    (TEST, REDIS, 6379, "TCP"),
    (TEST, MINIO, 9000, "TCP"),
    (PROMETHEUS, OPERATOR, 8080, "TCP"),
    (rank("team-a"), rank("team-a"), 29500, "TCP"),
    (rank("team-a"), REDIS, 6379, "TCP"),
    (rank("team-b"), MINIO, 9000, "TCP"),
    (rank("team-a"), DNS, 53, "UDP"),
    (rank("team-a"), HUB, 443, "TCP"),
    (rank("team-a"), HUB, 9443, "TCP"),
]
STOP = [
    (STRANGER, REDIS, 6379, "TCP"),
    (STRANGER, MINIO, 9000, "TCP"),
    (STRANGER, OPERATOR, 8080, "TCP"),
    (STRANGER, WORKER, 8080, "TCP"),
    (STRANGER, rank("team-a"), 29500, "TCP"),
    (PROMETHEUS, REDIS, 6379, "TCP"),
    (PROMETHEUS, MINIO, 9000, "TCP"),
    (rank("team-a"), rank("team-b"), 29500, "TCP"),
    (rank("elsewhere"), REDIS, 6379, "TCP"),
    (rank("elsewhere"), MINIO, 9000, "TCP"),
    (rank("team-a"), API, 443, "TCP"),
    (rank("team-a"), API, 6443, "TCP"),
    (rank("team-a"), METADATA, 80, "TCP"),
    (rank("team-a"), METADATA, 443, "TCP"),
    (rank("team-a"), outside("192.168.1.20"), 443, "TCP"),
    (rank("team-a"), outside("fd00::1"), 443, "TCP"),
    (rank("team-a"), HUB, 80, "TCP"),
    (rank("team-a"), HUB, 22, "TCP"),
    (rank("team-a"), OPERATOR, 8080, "TCP"),
    (rank("team-a"), WORKER, 5555, "TCP"),
    (rank("team-a"), MINIO, 9001, "TCP"),
    (rank("team-a"), STRANGER, 80, "TCP"),
    (WORKER, API, 443, "TCP"),
    (WORKER, HUB, 443, "TCP"),
    (rank("team-a"), HUB, 53, "UDP"),
    (rank("team-a"), shard("team-a"), 29500, "TCP"),
    (shard("team-a"), rank("team-a"), 29500, "TCP"),
    (shard("team-a"), shard("team-a"), 29500, "TCP"),
    (WORKER, OPERATOR, 8080, "TCP"),
    (WORKER, METADATA, 80, "TCP"),
    (OPERATOR, MINIO, 9000, "TCP"),
    (OPERATOR, HUB, 80, "TCP"),
    (OPERATOR, rank("team-a"), 29500, "TCP"),
    (REDIS, HUB, 443, "TCP"),
    (REDIS, DNS, 53, "UDP"),
    (MINIO, HUB, 443, "TCP"),
    (MINIO, REDIS, 6379, "TCP"),
    (PROVISION, REDIS, 6379, "TCP"),
    (PROVISION, HUB, 443, "TCP"),
    (HUB, REDIS, 6379, "TCP"),
    (HUB, MINIO, 9000, "TCP"),
    (HUB, rank("team-a"), 29500, "TCP"),
]


def name(flow) -> str:
    source, target, port, protocol = flow
    return f"{source.name} -> {target.name}:{port}/{protocol}"


@pytest.fixture
def policies(helm):
    return [one for one in helm.objects(VALUES) if one["kind"] == "NetworkPolicy"]


def test_what_must_pass_passes_and_nothing_else_does(policies):
    wrong = [f"stopped: {name(flow)}" for flow in PASS if not passes(policies, *flow)]
    wrong += [f"passes: {name(flow)}" for flow in STOP if passes(policies, *flow)]
    assert not wrong


@pytest.mark.parametrize("resolver", RESOLVERS.values(), ids=RESOLVERS)
def test_names_are_asked_of_the_clusters_dns_and_of_nobody_else(policies, resolver):
    for source in (OPERATOR, WORKER, PROVISION, TEST, rank("team-a"), shard("team-b")):
        for port, protocol in ((53, "UDP"), (53, "TCP"), (5353, "UDP")):
            assert passes(policies, source, DNS, port, protocol), source.name
            assert not passes(policies, source, resolver, port, protocol, blocks_match_pods=True), source.name


def test_where_names_are_resolved_elsewhere_the_values_say_so(helm):
    there = {"ipBlock": {"cidr": "169.254.20.10/32"}}
    values = {"tenants": ["team-a"], "networkPolicy": {"dnsTo": [there]}}
    policies = [one for one in helm.objects(values) if one["kind"] == "NetworkPolicy"]
    for source in (OPERATOR, WORKER, PROVISION, TEST, rank("team-a")):
        assert passes(policies, source, RESOLVERS["a cache on each node"], 53, "UDP"), source.name
        assert not passes(policies, source, RESOLVERS["the cloud's metadata service"], 53, "UDP"), source.name
        assert not passes(policies, source, DNS, 53, "UDP"), source.name


def test_without_the_internet_jobs_reach_only_the_store_the_broker_and_each_other(helm):
    values = {"tenants": ["team-a"], "networkPolicy": {"fetchFromInternet": False}}
    policies = [one for one in helm.objects(values) if one["kind"] == "NetworkPolicy"]
    assert not passes(policies, rank("team-a"), HUB, 443)
    assert not passes(policies, WORKER, HUB, 443)
    assert passes(policies, rank("team-a"), MINIO, 9000)


def test_a_public_endpoint_opens_the_store_to_all(helm):
    values = {"minio": {"publicEndpoint": "https://results.example.com"}}
    policies = [one for one in helm.objects(values) if one["kind"] == "NetworkPolicy"]
    assert passes(policies, HUB, MINIO, 9000)
    assert not passes(policies, HUB, MINIO, 9001)


def test_a_public_endpoint_of_a_destination_opens_the_bundled_store_too(helm):
    values = {"destinations": [{"publicEndpoint": "https://results.example.com"}]}
    policies = [one for one in helm.objects(values) if one["kind"] == "NetworkPolicy"]
    assert passes(policies, HUB, MINIO, 9000)


def test_metrics_are_for_all_pods_where_nobody_is_named_and_for_no_host(helm):
    policies = [one for one in helm.objects() if one["kind"] == "NetworkPolicy"]
    assert passes(policies, STRANGER, OPERATOR, 8080)
    assert not passes(policies, HUB, OPERATOR, 8080)


def store_of_others(endpoint: str) -> dict:
    return {
        "tenants": ["team-a", "team-b"],
        "networkPolicy": {"fetchFromInternet": False},
        "destinations": [
            {"name": "default"},
            {"name": "far", "endpoint": endpoint, "existingSecret": "far", "namespaces": ["team-a"]},
        ],
    }


ELSEWHERE = Peer("a store in another namespace", "storage", {"app": "minio"}, "10.244.7.7")
STORES = {
    "a name": ("http://s3.example.com", [(HUB, 80)], [(HUB, 443), (ELSEWHERE, 9000)]),
    "a name, by TLS": ("https://s3.example.com", [(HUB, 443)], [(HUB, 80)]),
    "an address": ("http://192.168.1.20:9000", [(outside("192.168.1.20"), 9000)], [(outside("192.168.1.21"), 9000)]),
    "an address of six": ("http://[fd00::7]:9000", [(outside("fd00::7"), 9000)], [(outside("fd00::8"), 9000)]),
    "a Service, whatever its pods' port": (
        "https://minio.storage.svc.cluster.local",
        [(ELSEWHERE, 9000)],
        [(HUB, 443), (STRANGER, 443)],
    ),
}


@pytest.mark.parametrize(("endpoint", "there", "elsewhere"), STORES.values(), ids=STORES)
def test_a_store_of_somebody_else_is_reached_by_whom_it_serves(helm, endpoint, there, elsewhere):
    policies = [one for one in helm.objects(store_of_others(endpoint)) if one["kind"] == "NetworkPolicy"]
    for source in (WORKER, TEST, rank("team-a")):
        assert all(passes(policies, source, *flow) for flow in there), source.name
        assert not any(passes(policies, source, *flow) for flow in elsewhere), source.name
    for source in (PROVISION, REDIS, MINIO, rank("team-b")):
        assert not any(passes(policies, source, *flow) for flow in there), source.name


@pytest.mark.parametrize(
    ("url", "there", "elsewhere"),
    [
        ("rediss://u:w@redis.example.com:6380/0", (HUB, 6380), (HUB, 6379)),
        ("redis://u:w@10.1.2.3/0", (outside("10.1.2.3"), 6379), (outside("10.1.2.4"), 6379)),
        ("redis://u:w@redis.cache.svc/0", (Peer("redis", "cache", address="10.244.8.8"), 6379), (HUB, 6379)),
    ],
)
def test_a_redis_of_somebody_else_is_reached(helm, url, there, elsewhere):
    redis = {"enabled": False, "externalUrl": url, "externalTenantUrls": {"team-a": url.replace("u:w", "a:w")}}
    values = {"tenants": ["team-a"], "redis": redis}
    policies = [one for one in helm.objects(values) if one["kind"] == "NetworkPolicy"]
    for source in (OPERATOR, WORKER, TEST, rank("team-a")):
        assert passes(policies, source, *there), source.name
        assert not passes(policies, source, *elsewhere), source.name


def test_what_the_administrator_adds_for_jobs_passes(helm):
    extra = [{"to": [{"ipBlock": {"cidr": "192.168.1.0/24"}}], "ports": [{"port": 3128}]}]
    values = {"tenants": ["team-a"], "networkPolicy": {"extraEgress": extra}}
    policies = [one for one in helm.objects(values) if one["kind"] == "NetworkPolicy"]
    assert passes(policies, rank("team-a"), outside("192.168.1.20"), 3128)
    assert not passes(policies, WORKER, outside("192.168.1.20"), 3128)


def test_every_pod_of_the_chart_is_under_a_policy(helm):
    objects = helm.objects()
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    templates = [one["spec"]["template"] for one in objects if one["kind"] in ("Deployment", "Job")]
    templates += [one for one in objects if one["kind"] == "Pod"]
    assert len(templates) == 6
    for template in templates:
        labels = template["metadata"]["labels"]
        assert any(matches(policy["spec"]["podSelector"], labels) for policy in policies), labels


def test_none_where_they_are_switched_off(helm):
    kinds = {one["kind"] for one in helm.objects({"networkPolicy": {"enabled": False}})}
    assert "NetworkPolicy" not in kinds
