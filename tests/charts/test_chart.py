"""The chart: its values are checked by its schema, and what it renders is what its description says."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from podsecurity import problems
from testcluster import binaries

from frazil_jobs.control import alive
from frazil_operator.chart.values import Values
from frazil_operator.settings import parse_settings

from .conftest import CHART

GOOD = {
    "nothing": {},
    "namespaced": {"namespaces": ["team-a", "team-b"], "tenants": ["team-a", "team-b"]},
    "no tenants": {"tenants": []},
    "other images": {"images": {"operator": "r.example.com/o@sha256:" + "0" * 64, "pullSecrets": ["registry"]}},
    "two operators": {"operator": {"replicas": 2}, "worker": {"replicas": 3}},
    "openshift": {"runAsUser": None, "jobs": {"runAsUser": None}},
    "external redis": {
        "redis": {
            "enabled": False,
            "externalUrl": "rediss://user:word@redis.example.com:6380/0",
            "externalTenantUrls": {"default": "rediss://tenant:word@redis.example.com:6380/0"},
        }
    },
    "external store": {
        "minio": {"enabled": False},
        "destinations": [{"name": "s3", "bucket": "b-1", "endpoint": "https://s3.example.com", "existingSecret": "s3"}],
    },
    "both stores": {
        "destinations": [
            {"name": "default"},
            {
                "name": "s3",
                "bucket": "b-1",
                "endpoint": "http://10.0.0.7:9000",
                "existingSecret": "s3",
                "customCa": True,
            },
        ]
    },
    "destination of some": {"destinations": [{"namespaces": ["team-a"], "inputs": ["s3://frazil/shared"]}]},
    "no prefix": {"destinations": [{"prefix": ""}]},
    "pinned minio": {"minio": {"digest": "sha256:" + "a" * 64}},
    "kept claim": {"minio": {"persistence": {"existingClaim": "mine"}}},
    "storage class": {"minio": {"persistence": {"storageClass": "fast", "size": "2Ti"}}},
    "no persistence": {"minio": {"persistence": {"enabled": False}}},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "p"}},
        "grafanaDashboard": {"enabled": True},
    },
    "no policies": {"networkPolicy": {"enabled": False}},
    "dns of openshift": {
        "networkPolicy": {
            "dnsTo": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}]
        }
    },
    "more egress": {"networkPolicy": {"extraEgress": [{"ports": [{"port": 3128}]}]}},
    "placement": {"operator": {"nodeSelector": {"pool": "system"}, "tolerations": [{"operator": "Exists"}]}},
    "resources": {"worker": {"resources": {"limits": {"memory": "3Gi"}, "requests": {"cpu": "0.5"}}}},
    "environment claim": {
        "environmentClaim": {"claimName": "env", "mountPath": "/opt/env", "python": "/opt/env/bin/p"}
    },
    "compute env": {"jobs": {"computeEnv": {"NCCL_DEBUG": "WARN"}, "gracePeriodSeconds": 120, "spoolSize": "5Gi"}},
    "risky": {"allow": {"pickle": True, "remoteCode": True}},
    "global": {"global": {"imageRegistry": "r.example.com"}},
}
BAD = {
    "unknown value": ({"imagez": {}}, "imagez"),
    "unknown in images": ({"images": {"operatr": "x"}}, "operatr"),
    "pull policy": ({"images": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    "pull secret": ({"images": {"pullSecrets": ["Not A Name"]}}, "pullSecrets"),
    "image number": ({"images": {"jobs": 7}}, "jobs"),
    "namespaces text": ({"namespaces": "team-a"}, "namespaces"),
    "namespace name": ({"namespaces": ["Team_A"]}, "namespaces"),
    "tenant name": ({"tenants": ["-a"]}, "tenants"),
    "replicas text": ({"operator": {"replicas": "two"}}, "replicas"),
    "replicas below": ({"operator": {"replicas": -1}}, "replicas"),
    "replicas above": ({"operator": {"replicas": 9}}, "replicas"),
    "lease short": ({"operator": {"leaseSeconds": 1}}, "leaseSeconds"),
    "workers none": ({"operator": {"workers": 0}}, "workers"),
    "progress none": ({"operator": {"progressSeconds": 0}}, "progressSeconds"),
    "log level": ({"operator": {"logLevel": "LOUD"}}, "logLevel"),
    "operator unknown": ({"operator": {"affinity": {}}}, "affinity"),
    "worker replicas": ({"worker": {"replicas": 100}}, "replicas"),
    "memory": ({"worker": {"resources": {"limits": {"memory": "lots"}}}}, "memory"),
    "root": ({"runAsUser": 0}, "runAsUser"),
    "jobs root": ({"jobs": {"runAsUser": 0}}, "runAsUser"),
    "grace": ({"jobs": {"gracePeriodSeconds": 1}}, "gracePeriodSeconds"),
    "spool": ({"jobs": {"spoolSize": "-5Gi"}}, "spoolSize"),
    "env number": ({"jobs": {"computeEnv": {"N": 1}}}, "computeEnv"),
    "allow": ({"allow": {"everything": True}}, "everything"),
    "allow text": ({"allow": {"pickle": "yes"}}, "pickle"),
    "no destinations": ({"destinations": []}, "destinations"),
    "destination name": ({"destinations": [{"name": "My Store"}]}, "destinations"),
    "bucket": ({"destinations": [{"bucket": "Bucket"}]}, "bucket"),
    "prefix": ({"destinations": [{"prefix": "../up"}]}, "prefix"),
    "endpoint": ({"destinations": [{"endpoint": "s3.example.com"}]}, "endpoint"),
    "endpoint path": ({"destinations": [{"endpoint": "https://s3.example.com/x"}]}, "endpoint"),
    "destination unknown": ({"destinations": [{"acl": "public"}]}, "acl"),
    "redis text": ({"redis": {"enabled": "no"}}, "enabled"),
    "redis none": ({"redis": {"enabled": False}}, "redis.externalUrl"),
    "redis of a tenant none": (
        {"redis": {"enabled": False, "externalUrl": "redis://u:w@r/0"}},
        "redis.externalTenantUrls.default is needed",
    ),
    "redis of a tenant nobody's": (
        {"redis": {"externalTenantUrls": {"default": "redis://r.example.com/0"}}},
        "externalTenantUrls",
    ),
    "minio digest": ({"minio": {"digest": "latest"}}, "digest"),
    "minio size": ({"minio": {"persistence": {"size": "big"}}}, "size"),
    "minio none": ({"minio": {"enabled": False}}, "destinations: default has no endpoint"),
    "no secret": ({"destinations": [{"name": "s", "endpoint": "https://s3.example.com"}]}, "needs existingSecret"),
    "policy": ({"networkPolicy": {"fetchFromInternet": "maybe"}}, "fetchFromInternet"),
    "no resolver": ({"networkPolicy": {"dnsTo": []}}, "dnsTo"),
    "claim": ({"environmentClaim": {"claimName": "env"}}, "environmentClaim"),
    "claim path": (
        {"environmentClaim": {"claimName": "env", "mountPath": "opt", "python": "/p"}},
        "mountPath",
    ),
    "monitor": ({"serviceMonitor": True}, "serviceMonitor"),
}


def test_it_lints(helm):
    ended = subprocess.run(
        [binaries.folder() / "helm", "lint", "--strict", CHART], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
def test_good_values_render_to_good_objects(helm, values):
    objects = helm.objects(values)
    for one in objects:
        pod = one["spec"] if one["kind"] == "Pod" else (one.get("spec") or {}).get("template", {}).get("spec")
        if one["kind"] in ("Pod", "Deployment", "Job"):
            assert problems(pod) == []
            assert all(found["securityContext"]["readOnlyRootFilesystem"] for found in pod["containers"])
    names = [(one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    (settings,) = [
        one["data"]["operator.yaml"]
        for one in objects
        if "operator.yaml" in (one.get("data") or {}) and one["kind"] == "ConfigMap"
    ]
    parse_settings(yaml.safe_load(settings))


@pytest.mark.parametrize(("values", "named"), BAD.values(), ids=BAD)
def test_bad_values_are_refused_by_name(helm, values, named):
    ended = helm.template(values)
    assert ended.returncode != 0, "it was rendered"
    assert named in ended.stderr


def test_the_defaults_of_the_file_are_those_of_the_schema():
    file = yaml.safe_load((CHART / "values.yaml").read_text())
    said = Values.model_validate(file).model_dump(by_alias=True)
    default = Values().model_dump(by_alias=True)
    for name in ("operator", "worker", "redis", "minio"):  # resources are only in the file
        said[name].pop("resources"), default[name].pop("resources")
    assert said == default


def test_secrets_stay_what_they_were_within_one_render(helm):
    objects = helm.objects({"tenants": ["team-a"]})
    by_name = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one for one in objects if one["kind"] == "Secret"
    }
    held = by_name["frazil-system", "frazil-credentials"]["data"]
    drawn = {key: base64.b64decode(word).decode() for key, word in held.items()}
    tenant = by_name["team-a", "frazil-redis"]["stringData"]["url"]
    assert drawn["redis-tenant-team-a"] in tenant
    assert f">{drawn['redis-tenant-team-a']} " in by_name["frazil-system", "frazil-redis"]["stringData"]["users.acl"]
    read = by_name["team-a", "frazil-default-read"]["stringData"]
    users = json.loads(by_name["frazil-system", "frazil-provision"]["stringData"]["users.json"])
    assert read["secretKey"] == next(user["secret"] for user in users if user["name"] == read["accessKey"])
    assert read["secretKey"] != by_name["team-a", "frazil-default-write"]["stringData"]["secretKey"]


def test_a_tenant_holds_nothing_of_another(helm):
    objects = helm.objects({"tenants": ["team-a", "team-b"]})
    held = {
        tenant: {
            value
            for one in objects
            if one["kind"] == "Secret" and one["metadata"]["namespace"] == tenant
            for key, value in one["stringData"].items()
            if key in ("secretKey", "url")
        }
        for tenant in ("team-a", "team-b")
    }
    assert len(held["team-a"]) == 3
    assert not held["team-a"] & held["team-b"]


def redis_of_others(control: str, **tenants: str) -> dict:
    urls = {name.replace("_", "-"): url for name, url in tenants.items()}
    return {
        "tenants": ["team-a", "team-b"],
        "redis": {"enabled": False, "externalUrl": control, "externalTenantUrls": urls},
    }


def test_a_tenant_of_an_external_redis_holds_its_own_url_and_no_other(helm):
    urls = {"team_a": "redis://a:word@redis.example.com/0", "team_b": "redis://b:word@redis.example.com/0"}
    objects = helm.objects(redis_of_others("redis://control:secret@redis.example.com/0", **urls))
    held = {
        one["metadata"]["namespace"]: one["stringData"]
        for one in objects
        if (one["kind"], one["metadata"]["name"]) == ("Secret", "frazil-redis")
    }
    assert held == {"team-a": {"url": urls["team_a"]}, "team-b": {"url": urls["team_b"]}}


SHARED = {
    "the control plane's URL": ("redis://c:w@r/0", "redis://a:w@r/0", "redis://c:w@r/0", "redis.externalUrl"),
    "its user, another database": ("redis://c:w@r/0", "redis://a:w@r/0", "redis://c:w@r/1", "redis.externalUrl"),
    "its user, who has no name": ("redis://:w@r/0", "redis://a:w@r/0", "redis://default:w@r/0", "redis.externalUrl"),
    "the user of a neighbour": ("redis://c:w@r/0", "redis://a:w@r/0", "redis://a:w@r/0", "another namespace"),
}


@pytest.mark.parametrize(("control", "first", "second", "whose"), SHARED.values(), ids=SHARED)
def test_a_user_of_an_external_redis_is_one_namespaces_alone(helm, control, first, second, whose):
    ended = helm.template(redis_of_others(control, team_a=first, team_b=second))
    assert ended.returncode != 0, "it was rendered"
    assert f"which is that of {whose}" in ended.stderr


def acl(helm, tenant: str, users: str) -> list[tuple[str, str]]:
    """Users of a tenant's bundled Redis whose names match, each with what it may do."""
    (lines,) = [
        one["stringData"]["users.acl"]
        for one in helm.objects({"tenants": [tenant]})
        if one["metadata"]["name"] == "frazil-redis" and "users.acl" in one.get("stringData", {})
    ]
    return re.findall(rf"user ({users}) on >\S+ (.+)", lines)


def test_a_missing_url_is_told_with_the_acl_that_the_bundled_redis_gives(helm):
    ((_, rights),) = acl(helm, "team-b", "tenant-team-b")
    ended = helm.template(redis_of_others("redis://c:w@r/0", team_a="redis://a:w@r/0"))
    assert ended.returncode != 0, "it was rendered"
    assert "redis.externalTenantUrls.team-b is needed" in ended.stderr
    assert f"ACL SETUSER tenant-team-b on >PASSWORD {rights}`" in ended.stderr


def test_the_acl_of_the_documents_is_that_of_the_bundled_redis(helm):
    said = dict(re.findall(r"ACL SETUSER (\S+) on >\S+ (.+)", (CHART.parent / "docs/operations.md").read_text()))
    assert said == dict(acl(helm, "team-a", "control|tenant-team-a"))


def test_crds_are_kept_when_it_is_uninstalled(helm):
    crds = [one for one in helm.objects() if one["kind"] == "CustomResourceDefinition"]
    assert len(crds) == 2
    assert all(one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for one in crds)


def test_no_pod_but_the_operators_has_a_token(helm):
    for one in helm.objects():
        if one["kind"] in ("Deployment", "Job"):
            token = one["spec"]["template"]["spec"]["automountServiceAccountToken"]
            assert token is (one["metadata"]["name"] == "frazil-operator")


def test_the_workers_probe_looks_at_the_file_that_the_worker_touches_and_outlasts_a_minute_without_a_broker(helm):
    for values, seconds in (({}, 300), ({"worker": {"stuckSeconds": 900}}, 900)):
        (spec,) = [
            one["spec"]["template"]["spec"]
            for one in helm.objects(values)
            if (one["kind"], one["metadata"]["name"]) == ("Deployment", "frazil-worker")
        ]
        (worker,) = spec["containers"]
        env = {one["name"]: one["value"] for one in worker["env"]}
        assert float(env[alive.STUCK_VARIABLE]) == seconds
        folders = {mount["mountPath"] for mount in worker["volumeMounts"] if not mount.get("readOnly")}
        assert str(Path(env[alive.VARIABLE]).parent) in folders
        assert worker["livenessProbe"]["exec"]["command"] == ["python", "-m", alive.__name__]
    assert helm.template({"worker": {"stuckSeconds": 60}}).returncode != 0


def test_the_dashboard_asks_for_metrics_that_there_are(helm):
    from prometheus_client import generate_latest

    from frazil_operator.engine.metrics import Metrics

    (board,) = [
        json.loads(one["data"]["frazil.json"])
        for one in helm.objects({"grafanaDashboard": {"enabled": True}})
        if one["metadata"]["name"] == "frazil-dashboard"
    ]
    there = generate_latest(Metrics().registry).decode()
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {
        word for expr in expressions for word in expr.replace("(", " ").replace("[", " ").replace(")", " ").split()
    }
    names = {word for word in asked if word.startswith("frazil_")}
    assert len(names) >= 7
    for name in names:
        base = name.removesuffix("_bucket").removesuffix("_total")
        assert f"# TYPE {base}" in there, name
