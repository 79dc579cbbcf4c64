"""Judges NetworkPolicies as a network plugin has to: may this end open a connection to that end, on this port?

A connection passes when the policies that isolate its source for egress, and those that isolate its target for ingress, each
hold a rule for it (kubernetes.io/docs/concepts/services-networking/network-policies). Ports are those of pods: plugins act
behind Services. Two things are left to plugins, so a claim says how it wants them read:

- whether an ipBlock matches the addresses of pods too (`blocks_match_pods`);
- nothing else: a pod's own node may always reach it, and is always reached.

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


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One end of a connection that policies may select."""

    namespace: str
    name: str
    labels: Labels = field(default_factory=dict)
    address: str = "10.244.0.10"
    ports: Mapping[str, int] = field(default_factory=dict)
    """Its containers' ports by name."""
    node: str | None = None
    """Address of the node that it runs on."""

    def __str__(self) -> str:
        return f"pod {self.namespace}/{self.name}"


@dataclass(frozen=True)
class Host:
    """One end that is no pod: a node, a resolver, something on the internet. No policy isolates it."""

    address: str
    name: str = "host"

    def __str__(self) -> str:
        return f"{self.name} {self.address}"


@dataclass(frozen=True, kw_only=True)
class Network:
    """Policies, and the namespaces that they speak of."""

    policies: Sequence[Mapping[str, Any]]
    namespaces: Mapping[str, Labels] = field(default_factory=dict)
    """Labels beside the name, which every namespace carries as a label."""
    blocks_match_pods: bool = False

    def refusals(self, source: Pod | Host, target: Pod | Host, port: int, protocol: str = "TCP") -> tuple[str, ...]:
        """Why it does not pass; empty when it does. Raises ValueError for policies that are none."""
        if _same_node(source, target):
            return ()
        found = []
        for direction, own, other in (("egress", source, target), ("ingress", target, source)):
            isolating = [policy for policy in self.policies if self._isolates(policy, direction, own)]
            if isolating and not any(
                self._rule_matches(rule, direction, own, other, target, port, protocol)
                for policy in isolating
                for rule in policy["spec"].get(direction) or ()
            ):
                names = ", ".join(policy["metadata"]["name"] for policy in isolating)
                found.append(f"{direction} of {own}: {protocol} {port} to {target} is in no rule of {names}")
        return tuple(found)

    def passes(self, source: Pod | Host, target: Pod | Host, port: int, protocol: str = "TCP") -> bool:
        """Whether it passes."""
        return not self.refusals(source, target, port, protocol)

    def _isolates(self, policy: Mapping[str, Any], direction: str, end: Pod | Host) -> bool:
        spec = policy["spec"]
        _known(spec, _SPEC, "spec")
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
        if not set(types) <= {"Ingress", "Egress"}:
            raise ValueError(f"policyTypes: {types}")
        if direction.capitalize() not in types or isinstance(end, Host):
            return False
        namespace = policy["metadata"]["namespace"]
        return namespace == end.namespace and matches(spec.get("podSelector", {}), end.labels)

    def _rule_matches(
        self,
        rule: Mapping[str, Any],
        direction: str,
        own: Pod | Host,
        other: Pod | Host,
        target: Pod | Host,
        port: int,
        protocol: str,
    ) -> bool:
        key = "to" if direction == "egress" else "from"
        _known(rule, frozenset({key, "ports"}), direction)
        assert isinstance(own, Pod), "only pods are isolated"
        # All are looked at, so that one that is none is found whatever comes before it.
        peers = [self._peer_matches(peer, own.namespace, other) for peer in rule.get(key) or ()]
        ports = [_port_matches(wanted, target, port, protocol) for wanted in rule.get("ports") or ()]
        return (not peers or any(peers)) and (not ports or any(ports))

    def _peer_matches(self, peer: Mapping[str, Any], namespace: str, end: Pod | Host) -> bool:
        _known(peer, _PEER, "peer")
        if not peer:
            raise ValueError("a peer must say something")
        if "ipBlock" in peer:
            if len(peer) > 1:
                raise ValueError("ipBlock stands alone in its peer")
            inside = _block_holds(peer["ipBlock"], end.address)
            return inside and (isinstance(end, Host) or self.blocks_match_pods)
        if isinstance(end, Host):
            return False
        if "namespaceSelector" in peer:
            labels = {**self.namespaces.get(end.namespace, {}), NAME_LABEL: end.namespace}
            there = matches(peer["namespaceSelector"], labels)
        else:
            there = end.namespace == namespace
        return matches(peer.get("podSelector", {}), end.labels) and there


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


def _same_node(source: Pod | Host, target: Pod | Host) -> bool:
    for pod, other in ((source, target), (target, source)):
        if isinstance(pod, Pod) and isinstance(other, Host) and pod.node == other.address:
            return True
    return False


def _block_holds(block: Mapping[str, Any], address: str) -> bool:
    _known(block, frozenset({"cidr", "except"}), "ipBlock")
    network, where = ip_network(block["cidr"]), ip_address(address)
    holes = [ip_network(text) for text in block.get("except") or ()]
    for hole in holes:
        if hole.version != network.version or hole == network or not hole.subnet_of(network):  # type: ignore[arg-type]
            raise ValueError(f"ipBlock: {hole} is not within {network}")
    return where in network and not any(where in hole for hole in holes)


def _port_matches(wanted: Mapping[str, Any], target: Pod | Host, port: int, protocol: str) -> bool:
    _known(wanted, _PORT, "ports")
    first, last = wanted.get("port"), wanted.get("endPort")
    if last is not None and (not isinstance(first, int) or last < first):
        raise ValueError(f"ports: endPort {last} after port {first}")
    asked = wanted.get("protocol", "TCP")
    if asked not in ("TCP", "UDP", "SCTP"):
        raise ValueError(f"ports: there is no protocol {asked}")
    if asked != protocol:
        return False
    if first is None:
        return True
    if isinstance(first, str):
        return isinstance(target, Pod) and target.ports.get(first) == port
    return first <= port <= (first if last is None else last)


def _known(part: Mapping[str, Any], names: frozenset[str], where: str) -> None:
    if unknown := set(part) - names:
        raise ValueError(f"{where}: nothing is called {', '.join(sorted(unknown))}")
