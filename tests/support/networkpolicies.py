"""Judges NetworkPolicies as a network plugin has to: may this end open a connection to that end, on this port?

A connection passes when the policies that isolate its source for egress, and those that isolate its target for ingress, each
hold a rule for it (kubernetes.io/docs/concepts/services-networking/network-policies). Ports are those of pods: plugins act
behind Services. A pod's own node always reaches it. Whether an ipBlock takes in the addresses of pods is left to plugins, so
a claim says how it's read (`blocks_match_pods`).

What an API server would refuse, or drop as unknown, is a ValueError here: a misspelt selector must not read as "all".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final

NAME_LABEL: Final = "kubernetes.io/metadata.name"
Labels = Mapping[str, str]
_SPEC: Final = frozenset({"podSelector", "policyTypes", "ingress", "egress"})
_PEER: Final = frozenset({"podSelector", "namespaceSelector", "ipBlock"})
_PORT: Final = frozenset({"port", "endPort", "protocol"})


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod, or, without a namespace, a host that no policy isolates."""

    name: str
    namespace: str | None = None
    labels: Labels = field(default_factory=dict)
    address: str | None = None
    namespace_labels: Labels = field(default_factory=dict)
    """Beside the name, which every namespace carries as a label."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """A pod's ports by name."""
    node: str | None = None
    """Address of the node that a pod runs on."""


def passes(
    policies: Sequence[Mapping[str, Any]],
    source: Peer,
    target: Peer,
    port: int,
    protocol: str = "TCP",
    *,
    blocks_match_pods: bool = False,
) -> bool:
    """Whether a connection passes. Raises ValueError for policies that are none."""
    return not refusals(policies, source, target, port, protocol, blocks_match_pods=blocks_match_pods)


def refusals(
    policies: Sequence[Mapping[str, Any]],
    source: Peer,
    target: Peer,
    port: int,
    protocol: str = "TCP",
    *,
    blocks_match_pods: bool = False,
) -> tuple[str, ...]:
    """Why a connection does not pass; empty when it does. Raises ValueError for policies that are none."""
    if _same_node(source, target) or _same_node(target, source):
        return ()
    asked = _Asked(target, port, protocol, blocks_match_pods)
    found = []
    for direction, own, other in (("egress", source, target), ("ingress", target, source)):
        isolating = [policy for policy in policies if _isolates(policy, direction, own)]
        rules = [rule for policy in isolating for rule in policy["spec"].get(direction) or ()]
        # All are looked at, so that one that is none is found whatever comes before it.
        if isolating and not any([asked.passes(rule, direction, own, other) for rule in rules]):  # noqa: C419
            names = ", ".join(policy["metadata"]["name"] for policy in isolating)
            found.append(f"{direction} of {own.name}: {protocol} {port} to {target.name} is in no rule of {names}")
    return tuple(found)


@dataclass(frozen=True)
class _Asked:
    """What a connection asks for, whichever end is looked at."""

    target: Peer
    port: int
    protocol: str
    blocks_match_pods: bool

    def passes(self, rule: Mapping[str, Any], direction: str, own: Peer, other: Peer) -> bool:
        key = "to" if direction == "egress" else "from"
        _known(rule, frozenset({key, "ports"}), direction)
        peers = [self._peer(peer, own.namespace, other) for peer in rule.get(key) or ()]
        ports = [self._port(wanted) for wanted in rule.get("ports") or ()]
        return (not peers or any(peers)) and (not ports or any(ports))

    def _peer(self, peer: Mapping[str, Any], namespace: str | None, end: Peer) -> bool:
        _known(peer, _PEER, "peer")
        if not peer:
            raise ValueError("a peer must say something")
        if "ipBlock" in peer:
            if len(peer) > 1:
                raise ValueError("ipBlock stands alone in its peer")
            inside = end.address is not None and _block_holds(peer["ipBlock"], end.address)
            return inside and (end.namespace is None or self.blocks_match_pods)
        if end.namespace is None:
            return False
        if "namespaceSelector" in peer:
            there = matches(peer["namespaceSelector"], {**end.namespace_labels, NAME_LABEL: end.namespace})
        else:
            there = end.namespace == namespace
        return matches(peer.get("podSelector", {}), end.labels) and there

    def _port(self, wanted: Mapping[str, Any]) -> bool:
        _known(wanted, _PORT, "ports")
        first, last = wanted.get("port"), wanted.get("endPort")
        if last is not None and (not isinstance(first, int) or last < first):
            raise ValueError(f"ports: endPort {last} after port {first}")
        protocol = wanted.get("protocol", "TCP")
        if protocol not in ("TCP", "UDP", "SCTP"):
            raise ValueError(f"ports: there is no protocol {protocol}")
        if protocol != self.protocol:
            return False
        if first is None:
            return True
        if isinstance(first, str):
            return self.target.ports.get(first) == self.port
        return first <= self.port <= (first if last is None else last)


def _isolates(policy: Mapping[str, Any], direction: str, end: Peer) -> bool:
    spec = policy["spec"]
    _known(spec, _SPEC, "spec")
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    if not set(types) <= {"Ingress", "Egress"}:
        raise ValueError(f"policyTypes: {types}")
    if direction.capitalize() not in types or policy["metadata"]["namespace"] != end.namespace:
        return False
    return matches(spec.get("podSelector", {}), end.labels)


def matches(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a label selector takes something with these labels. An empty one takes all. Raises ValueError."""
    _known(selector, frozenset({"matchLabels", "matchExpressions"}), "selector")
    verdicts = [labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        _known(expression, frozenset({"key", "operator", "values"}), "matchExpressions")
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
        if (operator in ("In", "NotIn")) != bool(values):
            raise ValueError(f"matchExpressions: {operator} with values {values}")
        if operator == "In":
            verdicts.append(labels.get(key) in values)
        elif operator == "NotIn":
            verdicts.append(labels.get(key) not in values)
        elif operator == "Exists":
            verdicts.append(key in labels)
        elif operator == "DoesNotExist":
            verdicts.append(key not in labels)
        else:
            raise ValueError(f"matchExpressions: there is no operator {operator}")
    return all(verdicts)


def _same_node(pod: Peer, host: Peer) -> bool:
    return pod.node is not None and host.namespace is None and host.address == pod.node


def _block_holds(block: Mapping[str, Any], address: str) -> bool:
    _known(block, frozenset({"cidr", "except"}), "ipBlock")
    network, where = ip_network(block["cidr"]), ip_address(address)
    holes = [ip_network(text) for text in block.get("except") or ()]
    for hole in holes:
        if hole.version != network.version or hole == network or not hole.subnet_of(network):  # type: ignore[arg-type]
            raise ValueError(f"ipBlock: {hole} is not within {network}")
    return where in network and not any(where in hole for hole in holes)


def _known(part: Mapping[str, Any], names: frozenset[str], where: str) -> None:
    if unknown := set(part) - names:
        raise ValueError(f"{where}: nothing is called {', '.join(sorted(unknown))}")
