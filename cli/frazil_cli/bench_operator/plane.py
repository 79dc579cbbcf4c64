"""What the operator is measured on: an API server, fake nodes, Redis, and a worker that agrees to everything.

The control plane is the one that KUBECONFIG names, or one of our own that a checkout can start (tests/cluster). Only the
operator is the real thing under load: pods are said to run by kwok, and inspection and finalization are answered by a
stand-in, since there is nothing to inspect.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from frazil_cli.local import Component, Supervisor
from frazil_cli.redis_server import EmbeddedRedis, prepare
from frazil_jobs.base.exits import BadConfiguration, FrazilError

NODE_LABEL: Final = "kwok.x-k8s.io/node"
GPU: Final = "nvidia.com/gpu"
CHECKOUT: Final = Path(__file__).resolve().parents[3]
T = TypeVar("T")

# kwok's stages: nodes are ready, a pod on one runs at once; with the second text it also ends at once.
_RUNNING: Final = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: bench-node-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: NotIn, values: ["True"]}
  delay: {durationMilliseconds: 0}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Running
      conditions:
      - type: Ready
        status: "True"
        reason: Fake
        lastHeartbeatTime: {{ $now | Quote }}
        lastTransitionTime: {{ or .metadata.creationTimestamp $now | Quote }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: bench-node-heartbeat}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: In, values: ["True"]}
  delay: {durationMilliseconds: 10000}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Running
      conditions:
      - type: Ready
        status: "True"
        reason: Fake
        lastHeartbeatTime: {{ $now | Quote }}
        lastTransitionTime: {{ or .metadata.creationTimestamp $now | Quote }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: bench-run}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Pending]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Running
      startTime: {{ $now | Quote }}
      conditions:
      - {type: Ready, status: "True", lastTransitionTime: {{ $now | Quote }}}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: true
        restartCount: 0
        state: {running: {startedAt: {{ $now | Quote }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: bench-delete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
  next: {delete: true}
"""
_COMPLETE: Final = """
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: bench-complete}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Running]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Succeeded
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: false
        restartCount: 0
        state: {terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}}
      {{ end }}
"""


@dataclass
class Plane:
    """The processes of one measurement, in one folder. All end with this process."""

    folder: Path
    kubeconfig: Path
    kwok: Path
    redis: EmbeddedRedis
    supervisor: Supervisor
    port: int
    _lives: int = field(default=0)

    @property
    def environment(self) -> dict[str, str]:
        """Of every process."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.folder),
            "KUBECONFIG": str(self.kubeconfig),
            "FRAZIL_REDIS_URL": self.redis.url,
            "FRAZIL_LOG": "json",
            "FRAZIL_STORE": str(self.folder / "store"),
        }

    def start_operator(self, settings: dict[str, Any]) -> None:
        """Start the operator, with settings as the chart writes them. One that runs is ended first."""
        self.stop("operator")
        path = self.folder / "operator.yaml"
        path.write_text(yaml.safe_dump(settings))
        self._lives += 1
        self._start(
            "operator",
            (sys.executable, "-m", "frazil_operator", "--config", str(path), "--port", str(self.port)),
            log=f"operator-{self._lives}.log",
        )

    def kill_operator(self) -> None:
        """As a crash would, with -9."""
        self.supervisor.kill(["operator"])

    def operator_pid(self) -> int:
        """The operator's process."""
        return self.supervisor.pid("operator")

    def start_kwok(self, *, complete: bool) -> None:
        """Start kwok. With `complete`, pods that run end at once."""
        self.stop("kwok")
        path = self.folder / "stages.yaml"
        path.write_text(_RUNNING + (_COMPLETE if complete else ""))
        self._start(
            "kwok",
            (
                str(self.kwok),
                "--kubeconfig",
                str(self.kubeconfig),
                "--config",
                str(path),
                f"--manage-nodes-with-label-selector={NODE_LABEL}=fake",
                "--v=WARN",
            ),
        )

    def start_worker(self) -> None:
        """Start the stand-in for the chart's worker Deployment."""
        self._start("worker", (sys.executable, "-m", "frazil_cli.bench_operator.agreeing_worker"))

    def stop(self, name: str) -> None:
        """End one of them."""
        if self.supervisor.running(name):
            self.supervisor.stop([name], seconds=10)

    def check(self) -> None:
        """Raise FrazilError, with its last words, if one has ended by itself."""
        for name in self.supervisor.poll():
            raise FrazilError(f"{name} has ended:\n{_tail(self.supervisor.component(name).log)}")

    def _start(self, name: str, arguments: tuple[str, ...], *, log: str | None = None) -> None:
        path = self.folder / "logs" / (log or f"{name}.log")
        self.supervisor.start(Component(name=name, arguments=arguments, env=self.environment, log=path))


@contextmanager
def plane(*, port: int, keep: Path | None = None) -> Iterator[Plane]:
    """Everything but the operator and kwok, running. `keep`: the folder for logs, kept afterwards."""
    folder = keep or Path(tempfile.mkdtemp(prefix="frazil-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    supervisor = Supervisor()
    try:
        kubeconfig, kwok = _control_plane(folder, supervisor)
        redis = prepare(folder / "redis")
        supervisor.start(redis.component(log=folder / "logs" / "redis.log", restarts=0))
        if not redis.wait(seconds=20):
            raise FrazilError(f"Redis does not start:\n{_tail(folder / 'logs' / 'redis.log')}")
        found = Plane(folder, kubeconfig, kwok, redis, supervisor, port)
        found.start_worker()
        yield found
    finally:
        supervisor.stop([name for name in supervisor.names() if name != "control-plane"], seconds=10)
        supervisor.stop(["control-plane"], seconds=40)
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _control_plane(folder: Path, supervisor: Supervisor) -> tuple[Path, Path]:
    """Kubeconfig and kwok: those of the environment, or of a control plane that is started here."""
    given, kwok = os.environ.get("KUBECONFIG"), shutil.which("kwok")
    if given and kwok:
        return Path(given), Path(kwok)
    if not (CHECKOUT / "tests" / "cluster" / "testcluster").is_dir():
        raise BadConfiguration(
            "there is no cluster to measure on",
            field="KUBECONFIG",
            remedy="set KUBECONFIG to a cluster of your own, with `kwok` on the PATH; or run this from a checkout",
        )
    state = folder / "plane"
    shutil.rmtree(state, ignore_errors=True)
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests" / "cluster")}
    env.pop("KUBECONFIG", None)
    command = (sys.executable, "-m", "testcluster", "plane", "--state", str(state))
    log = folder / "logs" / "control-plane.log"
    supervisor.start(Component(name="control-plane", arguments=command, env=env, log=log))

    def told() -> dict[str, str] | None:
        if supervisor.poll():
            raise FrazilError(f"the control plane does not start:\n{_tail(log)}")
        ready = state / "ready.json"
        return dict(json.loads(ready.read_text())) if ready.exists() else None

    # The first time its programs are built: some ten minutes.
    found = until(told, what="the control plane", seconds=1800)
    return Path(found["kubeconfig"]), Path(found["kwok"])


def until(holds: Callable[[], T | None], *, what: str, seconds: float, pause: float = 0.2) -> T:
    """Wait for something; what it gave. Raises FrazilError that names it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(pause)
    raise FrazilError(f"after {seconds:.0f} s still waiting for {what}")


def _tail(path: Path, lines: int = 20) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
