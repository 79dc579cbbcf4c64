"""The Celery task that inspects prompts, run by a real worker: what is wrong with a file is a result, not a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery
from servers import RealRedis, RealS3

from frazil_jobs.inputs import tasks
from frazil_jobs.stores import open_store

WORKER = """
import os
from celery import Celery
app = Celery("test", broker=os.environ["URL"], backend=os.environ["URL"], include=["frazil_jobs.inputs.tasks"])
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


def test_a_store_that_stays_down_is_a_result_after_the_last_try(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FRAZIL_STORE", "s3://results")
    monkeypatch.setenv("FRAZIL_S3_ENDPOINT", "http://127.0.0.1:9")
    result = tasks.inspect.apply(args=[job("s3://prompts/good.jsonl")], retries=tasks.RETRIES).get()
    assert result["error"]["exitCode"] == 75
