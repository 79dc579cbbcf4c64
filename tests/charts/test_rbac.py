"""What the chart lets the operator do: what it does, and nothing beyond. tests/cluster tries the same with its own token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from .conftest import NAMESPACE

OPERATOR = {"kind": "ServiceAccount", "name": "frazil-operator", "namespace": NAMESPACE}
JOBS = ("generationjobs", "trainingjobs")
GANGS = ("scheduling.k8s.io", "scheduling.volcano.sh", "scheduling.x-k8s.io")

NEEDED = {
    "find jobs when it starts": ("list", "frazil.dev", *JOBS),
    "hear of jobs": ("watch", "frazil.dev", *JOBS),
    "put a finalizer on a job whose outputs go with it": ("patch", "frazil.dev", *JOBS),
    "remove a job whose time to live is over": ("delete", "frazil.dev", *JOBS),
    "write a job's status": ("patch", "frazil.dev", "generationjobs/status", "trainingjobs/status"),
    "see whose a Job of a child's name is": ("get", "batch", "jobs"),
    "find children": ("list", "batch", "jobs"),
    "hear of children": ("watch", "batch", "jobs"),
    "make a child": ("create", "batch", "jobs"),
    "apply a child, and change its parallelism": ("patch", "batch", "jobs"),
    "end an attempt": ("delete", "batch", "jobs"),
    "find pods": ("list", "", "pods"),
    "hear of pods": ("watch", "", "pods"),
    "give up the pods of a lost node": ("patch", "", "pods/status"),
    "delete the pods of a lost node": ("delete", "", "pods"),
    "read prompts of a ConfigMap, and see whose one of a child's name is": ("get", "", "configmaps"),
    "see whose a Service of a child's name is": ("get", "", "services"),
    "give a job to its pods": ("create", "", "configmaps", "services"),
    "apply what pods are given": ("patch", "", "configmaps", "services"),
    "post Events": ("create", "", "events"),
    "watch gangs": ("watch", GANGS, "podgroups"),
    "list gangs": ("list", GANGS, "podgroups"),
    "see whose a gang of a child's name is": ("get", GANGS, "podgroups"),
    "make a gang": ("create", GANGS, "podgroups"),
    "apply a gang": ("patch", GANGS, "podgroups"),
    "end a gang": ("delete", GANGS, "podgroups"),
    "list what Kueue admits": ("list", "kueue.x-k8s.io", "workloads"),
    "hear what Kueue admits": ("watch", "kueue.x-k8s.io", "workloads"),
    "have Kueue stop a job": ("patch", "kueue.x-k8s.io", "workloads"),
}
"""Why: verb, group or groups, resources."""

FORBIDDEN = {
    "read a Secret": ("get", "", "secrets"),
    "list Secrets": ("list", "", "secrets"),
    "make a Secret": ("create", "", "secrets"),
    "make a pod of its own": ("create", "", "pods"),
    "change a pod": ("patch", "", "pods"),
    "run something in a pod": ("create", "", "pods/exec"),
    "attach to a pod": ("create", "", "pods/attach"),
    "put a container into a pod": ("patch", "", "pods/ephemeralcontainers"),
    "forward a port of a pod": ("create", "", "pods/portforward"),
    "read logs": ("get", "", "pods/log"),
    "bind a pod to a node": ("create", "", "pods/binding"),
    "look at all ConfigMaps": ("list", "", "configmaps"),
    "remove a ConfigMap": ("delete", "", "configmaps"),
    "remove a Service": ("delete", "", "services"),
    "read nodes": ("get", "", "nodes"),
    "change a node": ("patch", "", "nodes"),
    "reach a kubelet": ("get", "", "nodes/proxy"),
    "make a namespace": ("create", "", "namespaces"),
    "make a token": ("create", "", "serviceaccounts/token"),
    "act as somebody else": ("impersonate", "", "users"),
    "act as a service account": ("impersonate", "", "serviceaccounts"),
    "read volumes": ("get", "", "persistentvolumes"),
    "remove a claim": ("delete", "", "persistentvolumeclaims"),
    "make a Deployment": ("create", "apps", "deployments"),
    "make a DaemonSet": ("create", "apps", "daemonsets"),
    "make a CronJob": ("create", "batch", "cronjobs"),
    "remove all Jobs at once": ("deletecollection", "batch", "jobs"),
    "write the status of a Job": ("patch", "batch", "jobs/status"),
    "make a job": ("create", "frazil.dev", *JOBS),
    "write a job anew": ("update", "frazil.dev", *JOBS),
    "let a job's deletion wait for children": ("update", "frazil.dev", "generationjobs/finalizers"),
    "scale a job": ("patch", "frazil.dev", "generationjobs/scale"),
    "give rights": ("create", "rbac.authorization.k8s.io", "rolebindings"),
    "widen a role": ("escalate", "rbac.authorization.k8s.io", "clusterroles"),
    "bind a role": ("bind", "rbac.authorization.k8s.io", "clusterroles"),
    "change a CRD": ("patch", "apiextensions.k8s.io", "customresourcedefinitions"),
    "make a webhook": ("create", "admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    "approve a certificate": ("update", "certificates.k8s.io", "certificatesigningrequests/approval"),
    "open the network": ("patch", "networking.k8s.io", "networkpolicies"),
    "end somebody's Lease": ("delete", "coordination.k8s.io", "leases"),
    "make a priority class": ("create", "scheduling.k8s.io", "priorityclasses"),
    "change a queue": ("patch", "kueue.x-k8s.io", "clusterqueues"),
}


@dataclass(frozen=True)
class Rights:
    """Rules that hold somewhere, as the API server's authorizer reads them."""

    rules: tuple[dict[str, Any], ...]

    def allow(self, verb: str, group: str, resource: str, name: str = "") -> bool:
        return any(
            {verb, "*"} & set(rule["verbs"])
            and {group, "*"} & set(rule.get("apiGroups", ()))
            and {resource, "*"} & set(rule.get("resources", ()))
            and (not rule.get("resourceNames") or name in rule["resourceNames"])
            for rule in self.rules
        )


def rights_of(subject, objects, namespace):
    """What a subject may do in a namespace."""
    roles = {
        (one["kind"], one["metadata"]["namespace"] if one["kind"] == "Role" else None, one["metadata"]["name"]): one
        for one in objects
        if one["kind"] in ("Role", "ClusterRole")
    }
    rules = []
    for one in objects:
        everywhere = one["kind"] == "ClusterRoleBinding"
        if not everywhere and (one["kind"] != "RoleBinding" or one["metadata"]["namespace"] != namespace):
            continue
        if subject in one["subjects"]:
            role = one["roleRef"]
            rules += roles[role["kind"], namespace if role["kind"] == "Role" else None, role["name"]]["rules"]
    return Rights(tuple(rules))


def asked(table):
    """Each row as single questions."""
    for why, (verb, groups, *resources) in table.items():
        for group in (groups,) if isinstance(groups, str) else groups:
            for resource in resources:
                yield why, verb, group, resource


@pytest.mark.parametrize("values", [{}, {"namespaces": ["team-a", "team-b"]}], ids=["cluster-wide", "namespaced"])
def test_the_operator_may_do_what_it_does_and_nothing_that_it_does_not(helm, values):
    rights = rights_of(OPERATOR, helm.objects(values), "team-a")
    missing = [why for why, *question in asked(NEEDED) if not rights.allow(*question)]
    beyond = [why for why, *question in asked(FORBIDDEN) if rights.allow(*question)]
    assert (missing, beyond) == ([], [])


def test_every_right_of_the_operator_has_a_reason(helm):
    reasons = {(group, resource, verb) for _, verb, group, resource in asked(NEEDED)}
    given = {
        (group, resource, verb)
        for rule in rights_of(OPERATOR, helm.objects(), "team-a").rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert given == reasons


def test_with_namespaces_named_it_may_do_nothing_in_others(helm):
    objects = helm.objects({"namespaces": ["team-a"], "tenants": ["team-a"]})
    assert rights_of(OPERATOR, objects, "team-a").rules
    assert not rights_of(OPERATOR, objects, "team-b").rules
    assert not [one for one in objects if one["kind"] == "ClusterRoleBinding"]


def test_the_lease_is_its_own_and_in_the_releases_namespace_only(helm):
    objects = helm.objects()
    own, elsewhere = (rights_of(OPERATOR, objects, namespace) for namespace in (NAMESPACE, "team-a"))
    (settings,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", "frazil-operator")]
    assert "leaseName: frazil-operator\n" in settings["data"]["operator.yaml"]
    lease = ("coordination.k8s.io", "leases")
    assert own.allow("create", *lease)
    assert all(own.allow(verb, *lease, "frazil-operator") for verb in ("get", "update"))
    assert not own.allow("update", *lease, "kube-scheduler")
    assert not elsewhere.allow("create", *lease)


def test_no_rule_has_a_wildcard(helm):
    for one in helm.objects():
        if one["kind"] in ("Role", "ClusterRole"):
            for rule in one["rules"]:
                assert "*" not in [*rule["verbs"], *rule["apiGroups"], *rule["resources"]], one["metadata"]["name"]


def test_only_the_operator_is_given_rights(helm):
    bindings = [one for one in helm.objects() if one["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    assert len(bindings) == 2
    assert all(one["subjects"] == [OPERATOR] for one in bindings)


def test_people_get_their_rights_through_the_built_in_roles(helm):
    roles = {one["metadata"]["name"]: one for one in helm.objects() if one["kind"] == "ClusterRole"}
    edit, view = roles["frazil-edit"], roles["frazil-view"]
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    may_edit, may_view = Rights(tuple(edit["rules"])), Rights(tuple(view["rules"]))
    assert all(may_edit.allow(verb, "frazil.dev", job) for verb in ("create", "patch", "delete") for job in JOBS)
    assert all(may_edit.allow(verb, "frazil.dev", "generationjobs/scale") for verb in ("get", "update", "patch"))
    assert not may_edit.allow("delete", "frazil.dev", "generationjobs/scale")
    assert not may_edit.allow("patch", "frazil.dev", "generationjobs/status")
    assert all(may_view.allow(verb, "frazil.dev", job) for verb in ("get", "list", "watch") for job in JOBS)
    assert not may_view.allow("patch", "frazil.dev", "generationjobs")
