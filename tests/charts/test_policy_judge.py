"""The judge of NetworkPolicies itself, against what the documentation of Kubernetes says of each shape."""

import pytest
from networkpolicies import Peer, matches, passes, refusals

SRE = {"team": "sre"}
WEB = Peer("web", "shop", {"app": "web"}, "10.1.0.1", node="192.168.0.1")
DB = Peer("db", "shop", {"app": "db"}, "10.1.0.2", ports={"sql": 5432})
ADMIN = Peer("admin", "ops", {"app": "admin"}, "10.1.0.3", SRE)
LOOKALIKE = Peer("a web of ops", "ops", {"app": "web"}, "10.1.0.4", SRE)
OUTSIDE = Peer("a host on the internet", address="203.0.113.7")
NODE = Peer("the node", address="192.168.0.1")
OTHER_NODE = Peer("another node", address="192.168.0.2")

DB_ONLY = {"matchLabels": {"app": "db"}}
WEB_ONLY = {"matchLabels": {"app": "web"}}
OPS = {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}


def policy(*, namespace="shop", name="one", **spec):
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"podSelector": {}, **spec}}


def ingress(*rules, selector=DB_ONLY):
    return policy(podSelector=selector, ingress=list(rules))


def egress(*rules, selector=WEB_ONLY):
    return policy(podSelector=selector, policyTypes=["Egress"], egress=list(rules))


CASES = {
    "without a policy everything passes": ([], OUTSIDE, DB, 5432, True),
    "a policy without rules refuses what comes in": ([ingress()], WEB, DB, 5432, False),
    "a policy holds only for what it selects": ([ingress()], DB, WEB, 80, True),
    "a policy holds only in its own namespace": ([policy(ingress=[])], WEB, ADMIN, 80, True),
    "a policy of ingress says nothing of egress": ([ingress(selector=WEB_ONLY)], WEB, OUTSIDE, 443, True),
    "without policyTypes a list of egress isolates both ways": ([policy(egress=[{}])], ADMIN, WEB, 80, False),
    "an egress policy without rules refuses what goes out": ([egress()], WEB, OUTSIDE, 443, False),
    "policyTypes Egress alone leaves ingress open": ([egress()], ADMIN, WEB, 80, True),
    "policyTypes Egress without a list refuses what goes out": (
        [policy(policyTypes=["Ingress", "Egress"], ingress=[{}])],
        WEB,
        OUTSIDE,
        443,
        False,
    ),
    "an empty rule lets all pass": ([ingress({})], OUTSIDE, DB, 5432, True),
    "both ends have to agree": ([egress({}), ingress()], WEB, DB, 5432, False),
    "rules of several policies add up": (
        [ingress(), ingress({"from": [{"podSelector": WEB_ONLY}]})],
        WEB,
        DB,
        5432,
        True,
    ),
    "a podSelector alone means the policy's own namespace": (
        [ingress({"from": [{"podSelector": WEB_ONLY}]})],
        LOOKALIKE,
        DB,
        5432,
        False,
    ),
    "a namespaceSelector alone means all its pods": (
        [ingress({"from": [{"namespaceSelector": OPS}]})],
        ADMIN,
        DB,
        5432,
        True,
    ),
    "a namespaceSelector leaves out the policy's own namespace": (
        [ingress({"from": [{"namespaceSelector": OPS}]})],
        WEB,
        DB,
        5432,
        False,
    ),
    "an empty namespaceSelector means every pod": (
        [ingress({"from": [{"namespaceSelector": {}}]})],
        ADMIN,
        DB,
        5432,
        True,
    ),
    "an empty namespaceSelector means no host": (
        [ingress({"from": [{"namespaceSelector": {}}]})],
        OUTSIDE,
        DB,
        5432,
        False,
    ),
    "a namespace is selected by its own labels too": (
        [ingress({"from": [{"namespaceSelector": {"matchLabels": {"team": "sre"}}}]})],
        ADMIN,
        DB,
        5432,
        True,
    ),
    "selectors in one peer both have to match": (
        [ingress({"from": [{"namespaceSelector": OPS, "podSelector": WEB_ONLY}]})],
        ADMIN,
        DB,
        5432,
        False,
    ),
    "selectors in two peers are alternatives": (
        [ingress({"from": [{"namespaceSelector": OPS}, {"podSelector": WEB_ONLY}]})],
        ADMIN,
        DB,
        5432,
        True,
    ),
    "a port that is named is that of the target's container": (
        [ingress({"ports": [{"port": "sql"}]})],
        WEB,
        DB,
        5432,
        True,
    ),
    "a port's name that the target does not have matches nothing": (
        [egress({"ports": [{"port": "sql"}]})],
        WEB,
        OUTSIDE,
        5432,
        False,
    ),
    "another port does not pass": ([ingress({"ports": [{"port": 5432}]})], WEB, DB, 22, False),
    "a range holds its last port": (
        [ingress({"ports": [{"port": 5000, "endPort": 5432}]})],
        WEB,
        DB,
        5432,
        True,
    ),
    "a range ends": ([ingress({"ports": [{"port": 5000, "endPort": 5431}]})], WEB, DB, 5432, False),
    "a protocol without a port is all its ports": (
        [ingress({"ports": [{"protocol": "TCP"}]})],
        WEB,
        DB,
        1,
        True,
    ),
    "peers and ports of a rule both have to match": (
        [ingress({"from": [{"podSelector": WEB_ONLY}], "ports": [{"port": 22}]})],
        WEB,
        DB,
        5432,
        False,
    ),
    "an address in a block passes": (
        [egress({"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]})],
        WEB,
        OUTSIDE,
        443,
        True,
    ),
    "an address in a hole of a block does not": (
        [egress({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["203.0.113.0/24"]}}]})],
        WEB,
        OUTSIDE,
        443,
        False,
    ),
    "a block of one family holds no address of the other": (
        [egress({"to": [{"ipBlock": {"cidr": "::/0"}}]})],
        WEB,
        OUTSIDE,
        443,
        False,
    ),
    "a block may leave pods out": (
        [egress({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})],
        WEB,
        DB,
        5432,
        False,
    ),
    "a pod's own node always reaches it": ([ingress(selector=WEB_ONLY)], NODE, WEB, 80, True),
    "a pod always reaches its own node": ([egress()], WEB, NODE, 10250, True),
    "another node is a host like any": ([ingress(selector=WEB_ONLY)], OTHER_NODE, WEB, 80, False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_connection_passes_as_documented(case):
    policies, source, target, port, expected = CASES[case]
    assert passes(policies, source, target, port) is expected, refusals(policies, source, target, port)


def test_a_port_without_a_protocol_is_tcp():
    policies = [egress({"ports": [{"port": 53}]})]
    assert passes(policies, WEB, OUTSIDE, 53, "TCP")
    assert not passes(policies, WEB, OUTSIDE, 53, "UDP")


def test_whether_a_block_takes_pods_in_is_for_the_claim_to_say():
    policies = [egress({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})]
    assert not passes(policies, WEB, DB, 5432)
    assert passes(policies, WEB, DB, 5432, blocks_match_pods=True)


def test_a_refusal_names_the_end_and_its_policies():
    (reason,) = refusals([ingress()], WEB, DB, 5432)
    assert reason == "ingress of db: TCP 5432 to db is in no rule of one"


SELECTORS = {
    "nothing asked": ({}, True),
    "a label": ({"matchLabels": {"app": "web"}}, True),
    "another value": ({"matchLabels": {"app": "db"}}, False),
    "one label of two": ({"matchLabels": {"app": "web", "tier": "front"}}, False),
    "In": ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "web"]}]}, True),
    "In, not there": ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["web"]}]}, False),
    "NotIn": ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
    "NotIn takes what lacks the key": (
        {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]},
        True,
    ),
    "Exists": ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
    "DoesNotExist": ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    "both kinds": ({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
}


@pytest.mark.parametrize("case", SELECTORS)
def test_a_selector_takes_what_it_says(case):
    selector, expected = SELECTORS[case]
    assert matches(selector, {"app": "web"}) is expected


BROKEN = {
    "a misspelt selector": ingress({"from": [{"podselector": WEB_ONLY}]}),
    "a peer that says nothing": ingress({"from": [{}]}),
    "from in a rule of egress": egress({"from": [{"podSelector": {}}]}),
    "a block beside a selector": ingress({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}),
    "a hole outside of its block": ingress(
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["192.168.0.0/16"]}}]}
    ),
    "a block with bits of a host": ingress({"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}),
    "an unknown protocol": ingress({"ports": [{"port": 80, "protocol": "tcp"}]}),
    "a range by name": ingress({"ports": [{"port": "sql", "endPort": 6000}]}),
    "a range that ends before it begins": ingress({"ports": [{"port": 6000, "endPort": 5000}]}),
    "an unknown type": policy(policyTypes=["ingress"]),
    "an operator that is none": ingress(selector={"matchExpressions": [{"key": "app", "operator": "Is"}]}),
    "In without values": ingress(selector={"matchExpressions": [{"key": "app", "operator": "In", "values": []}]}),
    "Exists with values": ingress(
        selector={"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["a"]}]}
    ),
    "a field of the spec that is none": policy(rules=[]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_an_api_server_would_refuse_is_an_error(case):
    with pytest.raises(ValueError):
        passes([BROKEN[case]], WEB, DB, 5432)
