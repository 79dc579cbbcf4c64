"""The worker's liveness probe: it fails for one that is stuck or has no broker, and not for one that is busy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.result import AsyncResult
from gate import Gate
from servers import RealRedis, wait_for

from frazil_jobs.base import parent
from frazil_jobs.control.__main__ import THREADS
from frazil_jobs.control.beat import BEAT_SECONDS, Beat
from frazil_jobs.outputs.celery_app import INSPECT, make_app

LIMIT = 2 * BEAT_SECONDS


@dataclass
class Worker:
    """The worker's process, with a broker of its own and a store that takes connections and never answers."""

    folder: Path
    redis: RealRedis
    store: socket.socket
    gate: Gate
    """Before the broker."""

    def start(self) -> None:
        with (self.folder / "log").open("wb") as log:
            self.process = parent.start(
                [sys.executable, "-m", "frazil_jobs.control"], env=self.env, stdout=log, stderr=log
            )

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "FRAZIL_REDIS_URL": f"redis://127.0.0.1:{self.gate.port}/0",
            "FRAZIL_STORE": "s3://bucket",
            "FRAZIL_S3_ENDPOINT": f"http://127.0.0.1:{self.store.getsockname()[1]}",
            "FRAZIL_S3_ACCESS_KEY": "key",
            "FRAZIL_S3_SECRET_KEY": "secret",
            "TMPDIR": str(self.folder),
            "FRAZIL_ALIVE_FILE": str(self.folder / "alive"),
            "FRAZIL_STUCK_SECONDS": str(LIMIT),
        }

    def alive(self) -> bool:
        """What the probe says."""
        probe = [sys.executable, "-m", "frazil_jobs.control.alive"]
        return subprocess.run(probe, env=self.env, stdout=subprocess.DEVNULL).returncode == 0

    def beats(self, times: int = 3) -> None:
        """Wait until it has touched its file so often."""
        path, seen = self.folder / "alive", set[int]()

        def touched() -> bool:
            if path.exists():
                seen.add(path.stat().st_mtime_ns)
            return len(seen) >= times

        wait_for(touched, what=f"a heartbeat; see {(self.folder / 'log').read_text()[-2000:]}", seconds=120)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    redis = RealRedis(tmp_path / "redis")
    redis.start()
    gate = Gate(redis.port)
    with socket.create_server(("127.0.0.1", 0)) as store:
        made = Worker(tmp_path, redis, store, gate)
        made.start()
        yield made
        made.process.kill()
        made.process.wait()
    gate.shut()
    redis.stop()


FAULTS: dict[str, tuple[Callable[[Worker], None], Callable[[Worker], None]]] = {
    "it is stuck": (
        lambda worker: worker.process.send_signal(signal.SIGSTOP),
        lambda worker: worker.process.send_signal(signal.SIGCONT),
    ),
    "its broker is away": (lambda worker: worker.redis.kill(), lambda worker: worker.redis.start()),
}


@pytest.mark.parametrize(("fault", "mended"), FAULTS.values(), ids=FAULTS)
def test_the_probe_fails_after_a_while_and_no_longer_when_it_is_mended(worker: Worker, fault, mended) -> None:
    worker.beats()
    fault(worker)
    wait_for(lambda: not worker.alive(), what="the probe to fail", seconds=120)
    assert worker.process.poll() is None, "it waits for what will be there again"
    mended(worker)
    worker.beats()
    wait_for(worker.alive, what="the probe to pass")


def ask(worker: Worker, prompts: dict[str, Any], times: int) -> list[AsyncResult]:
    """Ask it so often to inspect a job with such prompts."""
    job = {
        "apiVersion": "frazil.dev/v1alpha1",
        "kind": "GenerationJob",
        "metadata": {"name": "demo"},
        "spec": {"model": {"uri": "hf://owner/model"}, "prompts": prompts},
    }
    app = make_app(worker.redis.url)
    return [
        app.send_task(INSPECT, kwargs={"job": job}, queue="frazil.control", ignore_result=False) for _ in range(times)
    ]


def test_a_worker_whose_threads_are_all_busy_is_alive(worker: Worker) -> None:
    asked = ask(worker, {"uri": "s3://bucket/default/prompts.jsonl", "perShard": 2}, THREADS)
    worker.store.settimeout(120)
    held = [worker.store.accept()[0] for _ in asked]
    worker.beats()
    assert not any(one.ready() for one in asked), "they were to be busy all the while"
    for connection in held:
        connection.close()


def test_results_wait_until_the_broker_takes_new_connections_again(worker: Worker) -> None:
    """As when its name can't be resolved for a while: the connection that tasks come over stays, one for results is new."""
    worker.beats()
    worker.gate.shut(leave=True)
    asked = ask(worker, {"inline": ["one", "two"]}, 3 * THREADS)
    broker = worker.redis.client()
    wait_for(lambda: broker.hlen("unacked") == THREADS, what="all threads to have a task")
    worker.beats()
    assert not any(one.ready() for one in asked)
    worker.gate.open()
    wait_for(lambda: all(one.ready() for one in asked), what="all answers")
    assert {one.result["prompts"]["count"] for one in asked} == {2}
    wait_for(lambda: broker.hlen("unacked") == 0, what="all to be acknowledged")


@pytest.mark.parametrize(
    ("room", "busy", "alive"), [(True, False, True), (False, True, True), (True, True, True), (False, False, False)]
)
def test_it_is_alive_while_it_can_take_a_task_or_has_one_at_work(tmp_path, monkeypatch, room, busy, alive) -> None:
    path = tmp_path / "alive"
    monkeypatch.setenv("FRAZIL_ALIVE_FILE", str(path))
    beats: list[Callable[[], None]] = []
    consumer = SimpleNamespace(
        timer=SimpleNamespace(call_repeatedly=lambda _seconds, beat: beats.append(beat)),
        task_consumer=SimpleNamespace(channel=SimpleNamespace(qos=SimpleNamespace(can_consume=lambda: room))),
        pool=SimpleNamespace(busy=busy),
    )
    Beat(consumer).start(consumer)
    path.unlink()
    beats[0]()
    assert path.exists() is alive
