"""The tasks on whole jobs: what is wrong with a file is a result, and no namespace reaches into another's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery
from servers import RealRedis, RealS3

from frazil_jobs.control import tasks
from frazil_jobs.stores import open_store

WORKER = """
import os
from celery import Celery
app = Celery("test", broker=os.environ["URL"], backend=os.environ["URL"], include=["frazil_jobs.control.tasks"])
app.worker_main(["worker", "--pool=solo", "--loglevel=WARNING", "--queues=inspect", "--without-gossip", "--without-mingle"])
"""


def job(uri: str) -> dict:
    return {
        "apiVersion": "frazil.dev/v1alpha1",
        "kind": "GenerationJob",
        "metadata": {"name": "demo"},
        "spec": {"model": {"uri": "hf://owner/model"}, "prompts": {"uri": uri, "perShard": 2}},
    }


def test_a_worker_pins_good_prompts_and_tells_what_is_wrong_with_others(
    redis_server: RealRedis, s3_server: RealS3, tmp_path: Path
):
    store = open_store(s3_server.config(s3_server.bucket("prompts")))
    store.put_bytes("good.jsonl", b'{"prompt": "a"}\n' * 5, content_type="application/jsonl")
    store.put_bytes("bad.jsonl", b'{"prompt": "a"}\nnonsense\n', content_type="application/jsonl")
    env = {"PATH": os.environ["PATH"], "URL": redis_server.url, **s3_server.config("prompts").to_env()}
    app = Celery("test", broker=redis_server.url, backend=redis_server.url)
    worker = subprocess.Popen([sys.executable, "-c", WORKER], env=env, cwd=tmp_path)
    try:
        asked = {
            uri: app.send_task(tasks.INSPECT, args=[job(uri)], queue="inspect")
            for uri in ("s3://prompts/good.jsonl", "s3://prompts/bad.jsonl", "/etc/passwd", "s3://prompts/none.jsonl")
        }
        results = {uri: result.get(timeout=120) for uri, result in asked.items()}
    finally:
        worker.kill()
        worker.wait()
    assert results["s3://prompts/good.jsonl"]["prompts"]["shards"] == 3
    assert results["s3://prompts/bad.jsonl"]["error"]["exitCode"] == 65
    assert "bad.jsonl line 2: not JSON" in results["s3://prompts/bad.jsonl"]["error"]["message"]
    assert results["/etc/passwd"]["error"]["exitCode"] == 78
    assert "is a path" in results["/etc/passwd"]["error"]["message"]
    assert results["s3://prompts/none.jsonl"]["error"]["exitCode"] == 78


def test_a_store_that_is_down_is_a_result_that_says_try_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FRAZIL_STORE", "s3://results")
    monkeypatch.setenv("FRAZIL_S3_ENDPOINT", "http://127.0.0.1:9")
    result = tasks.inspect.apply(args=[job("s3://prompts/good.jsonl")]).get()
    assert result["error"]["exitCode"] == 75


def test_the_text_of_a_config_map_is_inspected_by_the_ending_of_its_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FRAZIL_STORE", "s3://results")
    given = job("x")
    given["spec"]["prompts"] = {"configMapRef": {"name": "words", "key": "p.csv"}, "perShard": 2}
    result = tasks.inspect.apply(args=[given, "prompt\na\nb\nc\n"]).get()
    assert (result["prompts"]["count"], result["prompts"]["format"]) == (3, "csv")


@pytest.fixture
def two_namespaces(s3_server: RealS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A worker's view of a store in which two namespaces have results."""
    config = s3_server.config(s3_server.bucket("tenants"))
    destination = {
        "name": "default",
        "uri": "s3://tenants/results",
        "endpoint": config.endpoint,
        "credentials": str(tmp_path),
        "namespaces": ["one", "two"],
        "inputs": ["s3://shared/words"],
    }
    (tmp_path / "accessKey").write_text(config.access_key)
    (tmp_path / "secretKey").write_text(config.secret_key.get_secret_value())
    path = tmp_path / "destinations.json"
    path.write_text(json.dumps([destination]))
    monkeypatch.setenv("FRAZIL_DESTINATIONS", str(path))
    return open_store(config.model_copy(update={"uri": "s3://tenants/results"}))


def in_namespace(namespace: str, uri: str) -> dict:
    given = job(uri)
    given["metadata"]["namespace"] = namespace
    return given


def test_prompts_of_another_namespace_are_not_read_with_the_workers_rights(two_namespaces):
    two_namespaces.put_bytes("one/p.jsonl", b'{"prompt": "a"}\n', content_type="text/plain")
    uri = "s3://tenants/results/one/p.jsonl"
    assert tasks.inspect.apply(args=[in_namespace("one", uri)]).get()["prompts"]["count"] == 1
    for other in (in_namespace("two", uri), in_namespace("two", "s3://elsewhere/p.jsonl"), in_namespace("three", uri)):
        assert tasks.inspect.apply(args=[other]).get()["error"]["exitCode"] == 78


def test_only_what_lies_below_the_jobs_own_prefix_is_removed(two_namespaces):
    uid = "0a1b2c3d-0000-4000-8000-000000000000"
    kept = ["one/ice-0a1b2c3dd/x.png", "one/ice-ffffffff/x.png", "two/ice-0a1b2c3d/x.png"]
    for key in [*kept, *(f"one/ice-0a1b2c3d/images/{index:06d}-00.png" for index in range(1005))]:
        two_namespaces.put_bytes(key, b"x", content_type="image/png")
    asked = {"namespace": "one", "destination": "default", "prefix": "one/ice-0a1b2c3d", "uid": uid}
    assert tasks.delete_outputs.apply(kwargs=asked).get() == {"removed": 1005}
    assert tasks.delete_outputs.apply(kwargs=asked).get() == {"removed": 0}
    assert sorted(info.key for info in two_namespaces.list("") if "ice-" in info.key) == sorted(kept)


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": "two/ice-0a1b2c3d"},
        {"prefix": "one"},
        {"prefix": "one/"},
        {"prefix": "one/../two/ice-0a1b2c3d"},
        {"prefix": "one/ice-ffffffff"},
        {"uid": ""},
        {"uid": "-"},
        {"namespace": "three", "prefix": "three/ice-0a1b2c3d"},
        {"destination": "elsewhere"},
    ],
)
def test_a_prefix_that_is_not_the_jobs_own_is_refused(two_namespaces, change):
    asked = {
        "namespace": "one",
        "destination": "default",
        "prefix": "one/ice-0a1b2c3d",
        "uid": "0a1b2c3d-0000",
    } | change
    assert tasks.delete_outputs.apply(kwargs=asked).get()["error"]["exitCode"] == 78
