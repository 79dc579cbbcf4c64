"""The upload process with a real Redis and a real S3 server, of which any may die at any time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from servers import RealRedis, RealS3, wait_for

from frazil_jobs.base import parent
from frazil_jobs.outputs.progress import ShardProgress
from frazil_jobs.outputs.relay import read_progress, redis_key
from frazil_jobs.outputs.scanner import read_status
from frazil_jobs.outputs.spool import Spool
from frazil_jobs.stores import ObjectStore, StoreConfig, open_store


@dataclass
class Pod:
    """A spool and its uploader."""

    spool: Spool
    store: StoreConfig
    redis_url: str
    name: str
    log: Path
    expected: dict[str, bytes] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def prefix(self) -> str:
        return f"default/{self.name}"

    def start(self) -> None:
        env = {
            **os.environ,
            **self.store.to_env(),
            "FRAZIL_SPOOL": str(self.spool.root),
            "FRAZIL_QUEUE": f"frazil.upload.{self.name}",
            "FRAZIL_REDIS_URL": self.redis_url,
            "FRAZIL_PREFIX": self.prefix,
            "FRAZIL_JOB_UID": self.name,
        }
        with self.log.open("ab") as log:
            self.process = parent.start(
                [sys.executable, "-m", "frazil_jobs.outputs.upload"], env=env, stdout=log, stderr=log
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def add(self, count: int, size: int = 20_000) -> None:
        for _ in range(count):
            key = f"images/{len(self.expected):06d}-00.png"
            self.expected[key] = os.urandom(size)
            self.spool.add(key, self.expected[key], content_type="image/png", metadata={"shard": "0"})

    def drained(self) -> None:
        wait_for(self.spool.drained, what=f"the spool to drain; see {self.log.read_text()[-2000:]}", seconds=120)

    def check(self, store: ObjectStore) -> None:
        """The store holds each output exactly once, byte for byte, and nothing else."""
        keys = [info.key for info in store.list(f"{self.prefix}/")]
        assert sorted(keys) == sorted(f"{self.prefix}/{key}" for key in self.expected)
        for key, data in self.expected.items():
            assert store.get_bytes(f"{self.prefix}/{key}") == data


@pytest.fixture
def pod(tmp_path: Path, redis_server: RealRedis, s3_server: RealS3) -> Iterator[Pod]:
    store = s3_server.config(s3_server.bucket("uploads"))
    made = Pod(Spool(tmp_path / "spool"), store, redis_server.url, tmp_path.name.replace("_", "-"), tmp_path / "log")
    yield made
    made.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


def test_what_is_in_the_spool_is_stored_once_and_progress_is_relayed(pod: Pod, redis_server: RealRedis) -> None:
    pod.add(8)
    ShardProgress(shard=0, total=8, generated=8, state="Done").write(pod.spool.root)
    pod.start()
    pod.drained()
    pod.check(open_store(pod.store))

    def all_stored() -> bool:
        return [(one.shard, one.total, one.stored) for one in read_progress(redis_server.url, "default", pod.name)] == [
            (0, 8, 8)
        ]

    wait_for(all_stored, what="progress in Redis")
    assert redis_server.client().ttl(redis_key("default", pod.name)) > 0
    assert pod.process is not None
    pod.process.send_signal(signal.SIGTERM)
    assert pod.process.wait(60) == 0


def test_a_killed_worker_s_successor_stores_the_rest(pod: Pod) -> None:
    pod.add(20)
    pod.start()
    wait_for(lambda: len(pod.spool.acknowledged()) >= 2, what="the first uploads")
    pod.kill()
    pod.add(5)
    pod.start()
    pod.drained()
    pod.check(open_store(pod.store))


def test_an_emptied_redis_costs_a_rescan(pod: Pod, own_redis: RealRedis) -> None:
    pod.redis_url = own_redis.url
    pod.start()
    pod.add(1)
    pod.drained()
    for _ in range(4):
        pod.add(3)
        own_redis.client().flushall()
    pod.drained()
    pod.check(open_store(pod.store))


def test_a_killed_redis_is_waited_for_and_caught_up_with(pod: Pod, own_redis: RealRedis) -> None:
    pod.redis_url = own_redis.url
    pod.start()
    pod.add(2)
    pod.drained()
    own_redis.kill()
    pod.add(5)

    def told() -> bool:
        status = read_status(pod.spool.root)
        return status is not None and status.state == "BrokerUnreachable"

    wait_for(told, what="the status to name the broker")
    assert not pod.spool.drained()
    own_redis.start()
    pod.drained()
    pod.check(open_store(pod.store))


def test_a_worker_that_starts_without_redis_catches_up_when_it_comes(pod: Pod, own_redis: RealRedis) -> None:
    pod.redis_url = own_redis.url
    own_redis.kill()
    pod.add(3)
    pod.start()
    wait_for(lambda: read_status(pod.spool.root) is not None, what="a first status")
    own_redis.start()
    pod.drained()
    pod.check(open_store(pod.store))


@pytest.mark.slow
def test_a_killed_store_is_waited_for_and_caught_up_with(pod: Pod, tmp_path: Path) -> None:
    server = RealS3(tmp_path / "s3")
    server.start()
    try:
        pod.store = server.config(server.bucket("uploads"))
        pod.start()
        pod.add(2)
        pod.drained()
        server.kill()
        pod.add(5)

        def told() -> bool:
            status = read_status(pod.spool.root)
            return status is not None and status.state == "StoreUnreachable"

        wait_for(told, what="the status to name the store")
        server.start()
        pod.drained()
        pod.check(open_store(pod.store))
    finally:
        server.stop()


def test_wrong_credentials_are_told_and_nothing_is_lost(pod: Pod) -> None:
    right = pod.store
    pod.store = StoreConfig.model_validate({**right.model_dump(), "secret_key": "wrong"})
    pod.add(2)
    pod.start()

    def told() -> bool:
        status = read_status(pod.spool.root)
        return status is not None and status.state == "StoreDenied"

    wait_for(told, what="the status to say that the store refuses")
    assert len(pod.spool.pending()) == 2
    pod.kill()
    pod.store = right
    pod.start()
    pod.drained()
    pod.check(open_store(right))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": "../../escaped"}, "not a key"),
        ({"key": "/escaped"}, "not a key"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"size": 3}, "bytes where the sidecar says 3"),
        ({"id": "other"}, "makes no sense"),
    ],
)
def test_an_entry_that_can_not_be_trusted_is_refused_and_the_others_go_on(
    pod: Pod, changes: dict[str, object], reason: str
) -> None:
    pod.add(1)
    (entry_id,) = pod.spool.pending()
    sidecar = pod.spool.root / "entry" / f"{entry_id}.json"
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), **changes}))
    pod.expected.clear()
    pod.expected["images/other.png"] = b"fine"
    pod.spool.add("images/other.png", b"fine", content_type="image/png")
    pod.start()
    pod.drained()
    (refusal,) = pod.spool.refused()
    assert reason in refusal.reason
    pod.check(open_store(pod.store))
    assert not [info for info in open_store(pod.store).list("") if "escaped" in info.key]


def test_the_worker_dies_with_its_parent(pod: Pod, tmp_path: Path) -> None:
    script = (
        "import os, sys, time\nfrom frazil_jobs.base import parent\n"
        "p = parent.start([sys.executable, '-m', 'frazil_jobs.outputs.upload'], env=dict(os.environ))\n"
        "print(p.pid, flush=True)\ntime.sleep(600)\n"
    )
    pod.add(1)
    pod.start()
    pod.drained()
    assert pod.process is not None
    environ = Path(f"/proc/{pod.process.pid}/environ").read_bytes().decode().split("\0")
    env = dict(item.split("=", 1) for item in environ if "=" in item)
    middle = subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert middle.stdout is not None
    child = int(middle.stdout.readline())
    middle.kill()
    middle.wait()

    def gone() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    wait_for(gone, what="the worker to end with its parent", seconds=30)
