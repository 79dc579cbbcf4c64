"""The command on the real cluster: watched to the end, fetched by name, planned, and looked at when things are broken."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from frazil_command import Frazil

SYSTEM = "frazil-system"


@pytest.fixture
def frazil(tenant, tmp_path):
    """The command as a person calls it who has the cluster's kubeconfig."""
    return Frazil(tmp_path, {"KUBECONFIG": str(tenant.cluster.kubeconfig)})


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "images").iterdir()}


@pytest.mark.slow
def test_a_job_is_watched_to_its_end(tenant, frazil):
    name = tenant.apply(tenant.small_job("watched"))
    ended = frazil("watch", name, "-n", tenant.namespace, "--json", timeout=200)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert lines[-1]["phase"] == "Complete"
    assert lines[-1]["stored"] == 2
    assert len({line["phase"] for line in lines}) >= 2, "it was looked at while it ran"


def test_its_results_are_fetched_by_its_name_through_a_forwarded_port(tenant, frazil, finished, reference):
    """The store has no public endpoint here."""
    ended = frazil("fetch", finished, "-n", tenant.namespace, "--to", "here", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["complete"]
    assert files_in(frazil.folder / "here") == reference


def test_kubectl_finds_the_command_as_its_plugin(tenant, finished, reference, tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        [
            tenant.cluster.program("kubectl"),
            "frazil",
            "fetch",
            finished,
            "-n",
            tenant.namespace,
            "--to",
            tmp_path / "here",
        ],
        env={**os.environ, "PATH": path, "KUBECONFIG": str(tenant.cluster.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    assert files_in(tmp_path / "here") == reference


def test_what_is_planned_is_what_the_server_takes(tenant, frazil):
    job = frazil.write_job(tenant.job("planned"))
    ended = frazil("plan", job, "--quick", "--cluster", "--json", "-n", tenant.namespace)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    trials = {one["kind"]: one["accepted"] for one in json.loads(ended.stdout)["cluster"]["server"]["trials"]}
    assert {"GenerationJob", "Job", "ConfigMap"} <= set(trials)
    assert all(trials.values()), trials


def findings(frazil, tenant) -> tuple[int, dict[str, dict]]:
    ended = frazil("doctor", "-n", tenant.namespace, "--json")
    assert ended.stdout, ended.stderr
    found = json.loads(ended.stdout)["findings"]
    return ended.returncode, {one["check"]: one for one in found}


def test_the_doctor_finds_a_well_cluster_well(tenant, frazil):
    code, found = findings(frazil, tenant)
    assert len(found) == 10
    assert code == 0, [one for one in found.values() if one["state"] == "wrong"]
    assert found["services"]["state"] == found["credentials"]["state"] == "ok", "broker and store were asked"


@pytest.mark.slow
def test_the_doctor_finds_what_is_broken_and_says_the_remedy(tenant, frazil):
    """All at once, and mended again; what can't be broken here without the other tests (the CRDs, the gangs of the API
    server, Pod Security) is in tests/cli/cluster."""
    cluster, where = tenant.cluster, ["-n", tenant.namespace]
    secret = cluster.get("secret", "frazil-redis", namespace=tenant.namespace)
    secret["metadata"] = {key: secret["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-pods", "namespace": tenant.namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    away = [f"deployment/frazil-{name}" for name in ("operator", "redis")]
    jobs = {
        "no-image": {"workers": {"image": "frazil.test/none:1"}},
        "no-device": {"workers": {"accelerator": "example.com/none"}},
    }
    try:
        for name, spec in jobs.items():
            tenant.apply(tenant.small_job(name, **spec))
        cluster.until(
            "an image can't be pulled", lambda: "ErrImageNeverPull" in json.dumps(tenant.pods("no-image")), seconds=90
        )
        cluster.until("a pod waits", lambda: tenant.pods("no-device"))
        cluster.apply(quota)
        cluster.kubectl("delete", "secret", "frazil-redis", *where)
        cluster.kubectl("scale", *away, "-n", SYSTEM, "--replicas=0")
        cluster.kubectl(
            "wait",
            "--for=delete",
            "pod",
            "-n",
            SYSTEM,
            "-l",
            "app.kubernetes.io/component in (operator,redis)",
            check=False,
        )
        code, found = findings(frazil, tenant)
    finally:
        cluster.apply(secret)
        cluster.kubectl("delete", "resourcequota", "no-pods", *where, "--ignore-not-found")
        cluster.kubectl("scale", *away, "-n", SYSTEM, "--replicas=1")
        for one in away:
            cluster.kubectl("rollout", "status", one, "-n", SYSTEM, "--timeout=90s", seconds=100)
        for name in jobs:
            tenant.remove(name)
    assert code == 1
    wrong = {name for name, one in found.items() if one["state"] == "wrong"}
    assert wrong == {"accelerators", "credentials", "images", "operator", "quota", "services"}, found
    assert all(found[name]["remedy"] for name in wrong)
    assert "frazil-redis" in found["credentials"]["message"]
