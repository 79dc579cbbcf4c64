"""What the chart renders hangs together: names lead somewhere, selectors find their pods, and values mean what they say."""

from __future__ import annotations

import re

import pytest
import yaml

from frazil_operator.chart.schema import schema
from frazil_operator.chart.values import Values
from frazil_operator.settings import parse_settings

from .conftest import CHART, NAMESPACE

FAR = {"name": "far", "endpoint": "https://s3.example.com", "existingSecret": "far-keys", "customCa": True}
EVERYTHING = {
    "tenants": ["team-a", "team-b"],
    "namespaces": ["team-a", "team-b"],
    "operator": {"replicas": 2},
    "worker": {"replicas": 2},
    "images": {"pullSecrets": ["registry"]},
    "destinations": [{"name": "default"}, FAR],
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "grafanaDashboard": {"enabled": True, "labels": {"grafana_dashboard": "1", "team": "sre"}},
}
SETS = {
    "the defaults": ({}, set()),
    "everything": (EVERYTHING, {"far-keys", "registry"}),
    "nothing bundled": (
        {
            "redis": {
                "enabled": False,
                "externalUrl": "redis://user:word@10.0.0.9:6379/0",
                "externalTenantUrls": {"default": "redis://tenant:word@10.0.0.9:6379/0"},
            },
            "minio": {"enabled": False},
            "destinations": [FAR],
        },
        {"far-keys"},
    ),
    "a claim of one's own": ({"minio": {"persistence": {"existingClaim": "mine"}}}, {"mine"}),
}
"""Values, and what they name that is the administrator's to make."""


class Unique(yaml.CSafeLoader):
    """Refuses a mapping that has a key twice, of which a parser would take the last in silence."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{', '.join(twice)} is there twice, {node.start_mark}"
        return super().construct_mapping(node, deep=deep)


def pods_of(objects):
    """Name, labels and spec of every pod that the objects make."""
    for one in objects:
        if one["kind"] == "Pod":
            yield one["metadata"]["name"], one["metadata"]["labels"], one["spec"]
        elif one["kind"] in ("Deployment", "Job"):
            template = one["spec"]["template"]
            yield one["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def named(objects, kind, namespace=NAMESPACE):
    return {
        one["metadata"]["name"]: one
        for one in objects
        if one["kind"] == kind and one["metadata"]["namespace"] == namespace
    }


@pytest.mark.parametrize("values", [values for values, _ in SETS.values()], ids=SETS)
def test_no_object_has_a_key_twice(helm, values):
    ended = helm.template(values)
    assert ended.returncode == 0, ended.stderr
    for document in ended.stdout.split("\n---\n"):
        if "kind: CustomResourceDefinition" not in document:  # made by a program, and large
            yaml.load(document, Unique)


@pytest.mark.parametrize(("values", "others"), SETS.values(), ids=SETS)
def test_what_a_pod_names_is_there(helm, values, others):
    objects = helm.objects(values)
    there = {kind: set(named(objects, kind)) | others for kind in ("ConfigMap", "Secret", "PersistentVolumeClaim")}
    missing = []
    for pod, _, spec in pods_of(objects):
        asked = [("Secret", one["name"]) for one in spec.get("imagePullSecrets", ())]
        for volume in spec["volumes"]:
            asked += [("ConfigMap", volume["configMap"]["name"])] if "configMap" in volume else []
            asked += [("Secret", volume["secret"]["secretName"])] if "secret" in volume else []
            claim = volume.get("persistentVolumeClaim")
            asked += [("PersistentVolumeClaim", claim["claimName"])] if claim else []
        for container in spec["containers"]:
            for variable in container.get("env", ()):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                asked += [("Secret", reference["name"])] if reference else []
        missing += [(pod, kind, name) for kind, name in asked if name not in there[kind]]
        assert spec.get("serviceAccountName", "default") in {"default", *named(objects, "ServiceAccount")}
    assert missing == []


@pytest.mark.parametrize(("values", "others"), SETS.values(), ids=SETS)
def test_every_mount_has_its_volume_and_every_volume_a_mount(helm, values, others):
    for pod, _, spec in pods_of(helm.objects(values)):
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}, pod


@pytest.mark.parametrize("values", [values for values, _ in SETS.values()], ids=SETS)
def test_a_service_finds_the_pods_of_one_component_and_their_ports(helm, values):
    objects = helm.objects(values)
    for name, service in named(objects, "Service").items():
        selector = service["spec"]["selector"].items()
        found = [(pod, spec) for pod, labels, spec in pods_of(objects) if selector <= labels.items()]
        assert [pod for pod, _ in found] == [name]
        ports = {port["name"] for container in found[0][1]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_budgets_and_deployments_select_their_own_pods(helm):
    objects = helm.objects(EVERYTHING)
    deployments = named(objects, "Deployment")
    for deployment in deployments.values():
        spec = deployment["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    budgets = named(objects, "PodDisruptionBudget")
    assert set(budgets) == {"frazil-operator", "frazil-worker"}
    for name, budget in budgets.items():
        assert budget["spec"]["selector"] == deployments[name]["spec"]["selector"]


def test_a_single_replica_has_no_budget_that_would_stop_a_drain(helm):
    assert named(helm.objects(), "PodDisruptionBudget") == {}


def test_selectors_hold_nothing_that_an_upgrade_changes(helm):
    for deployment in named(helm.objects(), "Deployment").values():
        assert set(deployment["spec"]["selector"]["matchLabels"]) == {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
        }


def test_a_long_name_of_a_release_makes_names_that_are_allowed(helm):
    ended = helm.run("template", {"tenants": ["t"]}, "a" * 53, str(CHART), "-n", NAMESPACE)
    assert ended.returncode == 0, ended.stderr
    for one in yaml.load_all(ended.stdout, yaml.CSafeLoader):
        if one and one["kind"] not in ("CustomResourceDefinition",):
            assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", one["metadata"]["name"]), one["metadata"]["name"]


def test_a_namespace_that_a_destination_does_not_serve_gets_no_keys_to_it(helm):
    values = {"tenants": ["team-a", "team-b"], "destinations": [{"name": "vault", "namespaces": ["team-a"]}]}
    objects = helm.objects(values)
    assert {"frazil-vault-read", "frazil-vault-write"} <= set(named(objects, "Secret", "team-a"))
    assert set(named(objects, "Secret", "team-b")) == {"frazil-redis"}


def test_keys_of_a_store_of_somebody_else_are_not_made_up(helm):
    objects = helm.objects({"tenants": ["team-a"], "destinations": [FAR]})
    assert set(named(objects, "Secret", "team-a")) == {"frazil-redis"}
    (worker,) = [spec for name, _, spec in pods_of(objects) if name == "frazil-worker"]
    assert {"name": "store-far", "secret": {"secretName": "far-keys"}} in worker["volumes"]


def test_a_value_that_is_said_as_it_is_by_default_changes_nothing(helm):
    """Helm knows no defaults of a schema: where a template has forgotten one, this differs."""
    file = yaml.safe_load((CHART / "values.yaml").read_text())
    said = Values.model_validate(file).model_dump(by_alias=True, mode="json", exclude_none=True)
    for name in ("operator", "worker", "redis", "minio"):
        said[name].pop("resources")  # only the file has any
    quiet, loud = (
        {
            (one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]): one
            for one in helm.objects(values)
            if one["kind"] != "Secret"  # drawn anew by each render
        }
        for values in ({}, said)
    )
    ours = ("ConfigMap", NAMESPACE, "frazil-operator")
    settings = [parse_settings(yaml.safe_load(objects[ours]["data"].pop("operator.yaml"))) for objects in (quiet, loud)]
    assert settings[0] == settings[1]
    for objects in (quiet, loud):
        for one in objects.values():
            template = one.get("spec", {}).get("template", {})
            if isinstance(template, dict):
                template.get("metadata", {}).pop("annotations", None)  # checksums of the values as they were written
    assert quiet == loud


def test_every_value_is_described():
    found = schema()
    parts = {"": found, **found["$defs"]}
    nameless = [
        f"{part}.{name}"
        for part, definition in parts.items()
        for name, value in definition["properties"].items()
        if not value.get("description")
        and not parts.get(str(value.get("$ref")).rpartition("/")[2], value).get("description")
    ]
    assert nameless == []


def test_the_service_monitor_finds_the_operators_service(helm):
    objects = helm.objects(EVERYTHING)
    (monitor,) = named(objects, "ServiceMonitor").values()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selector = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = [one for one in named(objects, "Service").values() if selector <= one["metadata"]["labels"].items()]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"


def test_nothing_of_a_monitoring_stack_is_asked_for_unless_it_is_switched_on(helm):
    objects = helm.objects()
    assert named(objects, "ServiceMonitor") == {}
    assert "frazil-dashboard" not in named(objects, "ConfigMap")


def test_the_labels_of_the_dashboard_are_those_of_the_values(helm):
    labels = named(helm.objects(EVERYTHING), "ConfigMap")["frazil-dashboard"]["metadata"]["labels"]
    assert (labels["grafana_dashboard"], labels["team"]) == ("1", "sre")


def test_the_test_of_a_release_is_a_hook_and_waits_not_for_ever(helm):
    (pod,) = named(helm.objects(), "Pod").values()
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert "before-hook-creation" in pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert pod["spec"]["restartPolicy"] == "Never"
    assert 0 < pod["spec"]["activeDeadlineSeconds"] <= 600


@pytest.mark.parametrize("user", [65532, 1000, None])
def test_the_charts_pods_run_as_the_user_that_the_values_say(helm, user):
    for name, _, spec in pods_of(helm.objects({"runAsUser": user})):
        assert spec["securityContext"].get("runAsUser") == user, name
