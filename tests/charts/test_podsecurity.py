"""The judge of Pod Security itself: what `restricted` forbids it finds, one thing at a time."""

from __future__ import annotations

import copy

import pytest
from podsecurity import problems

GOOD = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    "initContainers": [
        {
            "name": "first",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
    "containers": [
        {
            "name": "main",
            "ports": [{"containerPort": 8080}],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "keys", "secret": {"secretName": "keys"}}],
}


def changed(path, value):
    """A copy with one thing set; None takes it away."""
    spec = copy.deepcopy(GOOD)
    *parents, last = path
    part = spec
    for name in parents:
        part = part[name] if isinstance(name, int) else part.setdefault(name, {})
    if value is None:
        del part[last]
    else:
        part[last] = value
    return spec


OWN = ("containers", 0, "securityContext")
FIRST = ("initContainers", 0, "securityContext")
BROKEN = {
    "the node's network": (("hostNetwork",), True),
    "the node's processes": (("hostPID",), True),
    "the node's shared memory": (("hostIPC",), True),
    "a folder of the node": (("volumes", 0), {"name": "tmp", "hostPath": {"path": "/"}}),
    "a volume of NFS": (("volumes", 0), {"name": "tmp", "nfs": {"server": "a", "path": "/"}}),
    "a port of the node": (("containers", 0, "ports", 0, "hostPort"), 8080),
    "privileged": ((*OWN, "privileged"), True),
    "escalation allowed": ((*OWN, "allowPrivilegeEscalation"), True),
    "escalation not spoken of": ((*OWN, "allowPrivilegeEscalation"), None),
    "escalation in an init container": ((*FIRST, "allowPrivilegeEscalation"), None),
    "capabilities kept": ((*OWN, "capabilities"), None),
    "some capabilities dropped": ((*OWN, "capabilities"), {"drop": ["NET_RAW"]}),
    "capabilities kept in an init container": ((*FIRST, "capabilities"), None),
    "a capability added": ((*OWN, "capabilities"), {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    "root not excluded": (("securityContext", "runAsNonRoot"), None),
    "root let in by the container": ((*OWN, "runAsNonRoot"), False),
    "root": (("securityContext", "runAsUser"), 0),
    "root by the container": ((*OWN, "runAsUser"), 0),
    "no seccomp profile": (("securityContext", "seccompProfile"), None),
    "seccomp off": (("securityContext", "seccompProfile"), {"type": "Unconfined"}),
    "seccomp off by the container": ((*OWN, "seccompProfile"), {"type": "Unconfined"}),
}


@pytest.mark.parametrize(("path", "value"), BROKEN.values(), ids=BROKEN)
def test_it_finds_what_restricted_forbids(path, value):
    assert len(problems(changed(path, value))) >= 1


def test_it_lets_a_restricted_pod_be():
    assert problems(GOOD) == []


def test_binding_a_low_port_is_the_one_capability_that_may_be_added():
    allowed = {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
    assert problems(changed((*OWN, "capabilities"), allowed)) == []
