"""`frazil fetch NAME` of a cluster's job: the Secret's right to read, a public endpoint or a forwarded port."""

import hashlib
import json

import pytest

from frazil_jobs.outputs.manifest import Manifest, Output
from frazil_jobs.stores import open_store


def results(plane, namespace, name, *, count=6, manifest=True):
    """What a finished job leaves: images, manifest, and a status that says where."""
    job = plane.job(namespace, name)
    prefix = f"{namespace}/{name}-{job['metadata']['uid'].replace('-', '')[:8]}"
    store = open_store(plane.store.config(plane.store.bucket("frazil"), "results"))
    rows = []
    for index in range(count):
        data = f"image {index} of {prefix}".encode() * 50
        key = f"images/{index:06d}-00.png"
        store.put_bytes(f"{prefix}/{key}", data, content_type="image/png")
        sha256 = hashlib.sha256(data).hexdigest()
        place = {"prompt_index": index, "image_index": 0, "prompt": "a", "seed": index}
        rows.append(Output(key=key, sha256=sha256, size=len(data), content_type="image/png", **place))
    if manifest:
        found = Manifest(
            name=name,
            namespace=namespace,
            uid=job["metadata"]["uid"],
            prefix=prefix,
            mode="Exact",
            changes="nothing",
            prompts_sha256="0" * 64,
            total=count,
            stored=count,
            bytes=1,
            created_at="2026-01-01T00:00:00+00:00",
            spec={},
            outputs=rows,
        )
        text = found.model_dump_json(by_alias=True).encode()
        store.put_bytes(f"{prefix}/manifest.json", text, content_type="application/json")
    uri = f"s3://frazil/results/{prefix}/"
    plane.status(namespace, name, phase="Complete" if manifest else "Running", outputs={"uri": uri})
    return prefix, {row.key: row.sha256 for row in rows}


def fetched(folder):
    return {
        f"images/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "images").iterdir()
    }


@pytest.mark.parametrize("public", [False, True])
def test_a_finished_job_is_fetched_by_its_name(plane, namespace, person, public):
    plane.tenant(namespace, public=plane.store.endpoint if public else "")
    prefix, images = results(plane, namespace, "ice")
    ended = person("fetch", "ice", "-n", namespace, "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["prefix"], found["fetched"], found["complete"]) == (prefix, 7, True)
    assert fetched(person.folder / "ice") == images
    again = json.loads(person("fetch", "ice", "-n", namespace, "--json").stdout)
    assert (again["fetched"], again["alreadyHere"]) == (0, 7)


def test_a_job_at_work_is_fetched_only_in_part_and_only_when_asked(plane, namespace, person):
    plane.tenant(namespace)
    _, images = results(plane, namespace, "ice", manifest=False)
    refused = person("fetch", "ice", "-n", namespace)
    assert refused.returncode == 75
    assert "6 outputs are stored so far" in refused.stderr
    assert person("fetch", "ice", "-n", namespace, "--partial").returncode == 0
    assert fetched(next(person.folder.glob("ice-*"))) == images


def test_a_job_without_results_says_what_it_is_doing(plane, namespace, person):
    plane.tenant(namespace)
    plane.job(namespace, "ice")
    ended = person("fetch", "ice", "-n", namespace)
    assert ended.returncode == 75
    assert "ice has no results yet: it is new to the operator" in ended.stderr
    assert "frazil watch ice" in ended.stderr


def test_results_that_are_here_come_before_the_clusters(plane, namespace, person):
    """Unless the cluster is named."""
    from frazil_jobs.stores import StoreConfig

    plane.tenant(namespace)
    prefix, _ = results(plane, namespace, "ice")
    local = open_store(StoreConfig(uri=(person.folder / "frazil-results").as_uri()))
    local.put_bytes(f"{namespace}/ice-0a1b2c3d/images/x.png", b"x", content_type="image/png")
    here = person("fetch", "ice", "-n", namespace, "--partial", "--json")
    assert json.loads(here.stdout)["prefix"] == f"{namespace}/ice-0a1b2c3d"
    there = person("fetch", "ice", "-n", namespace, "--kubeconfig", plane.kubeconfig, "--json")
    assert json.loads(there.stdout)["prefix"] == prefix


def test_a_name_that_is_nowhere_says_where_it_was_looked_for(plane, namespace, person):
    plane.job(namespace, "ice")
    ended = person("fetch", "icy", "-n", namespace)
    assert ended.returncode == 78
    assert "frazil-results" in ended.stderr
    assert "there is no job 'icy' in the namespace" in ended.stderr
    assert "did you mean ice?" in ended.stderr


def test_a_store_that_is_named_is_the_only_one_asked(plane, namespace, person):
    plane.tenant(namespace)
    results(plane, namespace, "ice")
    ended = person("fetch", "ice", "-n", namespace, "--store", "elsewhere")
    assert ended.returncode == 78
    assert "cluster" not in ended.stderr


def no_secret(plane, namespace):
    return "has no Secret frazil-default-read", "`tenants`"


def half_a_secret(plane, namespace):
    plane.secret(namespace, "frazil-default-read", {"endpoint": "http://x", "bucket": "frazil"})
    return "the Secret frazil-default-read lacks accessKey, secretKey", "docs/operations.md"


def wrong_keys(plane, namespace):
    plane.tenant(namespace, accessKey="nobody")
    return "doesn't know this access key", ""


def moved(plane, namespace):
    plane.tenant(namespace, prefix="elsewhere")
    return "this namespace's Secret is for s3://frazil/elsewhere", "--store"


def tls_inside(plane, namespace):
    plane.tenant(namespace, endpoint="https://store.frazil-system.svc:9000")
    return "a name that only the cluster knows", "public endpoint"


def no_pod(plane, namespace):
    plane.tenant(namespace, endpoint=f"http://store.{namespace}.svc:9000")
    spec = {"selector": {"no": "one"}, "ports": [{"port": 9000}]}
    meta = {"name": "store", "namespace": namespace}
    plane.kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    return "no pod of the Service", "frazil doctor"


@pytest.mark.parametrize("case", [no_secret, half_a_secret, wrong_keys, moved, tls_inside, no_pod])
def test_what_stands_between_a_person_and_the_results_is_named_with_the_remedy(plane, namespace, person, case):
    results(plane, namespace, "ice", count=1)
    message, remedy = case(plane, namespace)
    ended = person("fetch", "ice", "-n", namespace)
    assert ended.returncode in (75, 78)
    assert message in ended.stderr
    assert remedy in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_person_without_the_right_to_the_secret_is_told_which_right(plane, namespace, person):
    plane.tenant(namespace)
    results(plane, namespace, "ice", count=1)
    look = {"apiGroups": ["frazil.dev"], "resources": ["generationjobs", "trainingjobs"], "verbs": ["get", "list"]}
    ended = person("fetch", "ice", "-n", namespace, "--kubeconfig", plane.person(namespace, look))
    assert ended.returncode == 78
    assert f"you need the right to get the Secret frazil-default-read of '{namespace}'" in ended.stderr


def test_the_least_rights_to_fetch_through_a_public_endpoint(plane, namespace, person):
    plane.tenant(namespace, public=plane.store.endpoint)
    _, images = results(plane, namespace, "ice")
    jobs = {"apiGroups": ["frazil.dev"], "resources": ["generationjobs", "trainingjobs"], "verbs": ["get"]}
    secret = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["frazil-default-read"],
        "verbs": ["get"],
    }
    ended = person("fetch", "ice", "-n", namespace, "--kubeconfig", plane.person(namespace, jobs, secret))
    assert ended.returncode == 0, ended.stderr
    assert fetched(person.folder / "ice") == images


def test_kubectl_calls_the_plugin_and_its_usage_has_its_name(plane, namespace, person):
    """`kubectl frazil fetch NAME`, found by kubectl on the PATH."""
    import os
    import subprocess
    import sys
    from pathlib import Path

    plane.tenant(namespace)
    _, images = results(plane, namespace, "ice")
    kubectl = str(plane.kubectl.bin / "kubectl")
    env = {**os.environ, **person.env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}

    def call(*arguments):
        command = [kubectl, "frazil", *arguments]
        return subprocess.run(command, env=env, cwd=person.folder, capture_output=True, text=True, timeout=200)

    assert "Usage: kubectl frazil" in call("--help").stdout
    assert "Usage: kubectl frazil fetch" in call("fetch", "--help").stdout
    ended = call("fetch", "ice", "-n", namespace, "--to", "there")
    assert ended.returncode == 0, ended.stderr
    assert fetched(person.folder / "there") == images
    assert "NAME" in call("fetch").stderr
