"""A real API server without machines: etcd, Kubernetes' control plane, and a node of kwok's that forwards ports.

Only the node is pretended: its pods run nothing, and ports 9000 and 6379 of any of them lead to a real S3 server and a real
Redis of this machine.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from frazil_command import Frazil
from gate import Gate
from servers import RealRedis, RealS3, free_port, wait_for
from testcluster import binaries
from testcluster.cluster import Cluster as Kubectl

from frazil_cli.cluster.access import Access
from frazil_cli.cluster.client import Cluster
from frazil_jobs.api import crd
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base import parent

SYSTEM = "frazil-system"
NODE = "pretended"
NEEDED = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok")
SERVE = """
import sys
from pathlib import Path
from testcluster import plane
plane.PORT, plane.ETCD_PORT = int(sys.argv[2]), int(sys.argv[3])
plane.serve(Path(sys.argv[1]))
"""
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that use the API server are marked, and have patience for its start."""
    for item in items:
        if "tests/cli/cluster/" in str(item.path) and "plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.cluster)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(600))


@dataclass
class Plane:
    """The API server, and what stands behind the pretended node."""

    state: Path
    kubectl: Kubectl
    store: RealS3
    broker: RealRedis

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    def cluster(self, namespace: str) -> Cluster:
        """The command's own client."""
        return Cluster.connect(Access(kubeconfig=self.kubeconfig, namespace=namespace))

    def namespace(self) -> str:
        """A new one."""
        return self.kubectl.namespace(f"team-{next(_numbers)}", restricted=False)

    def tenant(self, namespace: str, *, public: str = "", **changes: str) -> None:
        """The Secrets that the chart makes."""
        values = {
            "endpoint": f"http://store.{SYSTEM}.svc:9000",
            "publicEndpoint": public,
            "region": "",
            "bucket": self.store.bucket("frazil"),
            "prefix": "results",
            "accessKey": self.store.access_key,
            "secretKey": self.store.secret_key,
            **changes,
        }
        for right in ("read", "write"):
            self.secret(namespace, f"frazil-default-{right}", values)
        self.secret(namespace, "frazil-redis", {"url": f"redis://broker.{SYSTEM}.svc:6379/0"})

    def secret(self, namespace: str, name: str, values: dict[str, str]) -> None:
        meta = {"name": name, "namespace": namespace}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": values})

    def job(self, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
        """A GenerationJob that nobody works on."""
        return self._job("GenerationJob", namespace, name, {"prompts": {"inline": ["one", "two"]}, **spec})

    def training(self, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
        """A TrainingJob that nobody works on."""
        return self._job(
            "TrainingJob", namespace, name, {"task": "CausalLM", "dataset": {"uri": "s3://a/b"}, "steps": 10, **spec}
        )

    def _job(self, kind: str, namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        whole = {"model": {"uri": "hf://a/b"}, **spec}
        meta = {"name": name, "namespace": namespace}
        self.kubectl.apply({"apiVersion": "frazil.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": whole})
        return self.kubectl.get(kind.lower(), name, namespace=namespace)

    def status(self, namespace: str, name: str, **status: Any) -> None:
        """What the operator would write."""
        patch = json.dumps({"status": status})
        self.kubectl.kubectl(
            "patch", "generationjob", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch
        )

    def person(self, namespace: str, *rules: dict[str, Any]) -> Path:
        """The kubeconfig of somebody who may do no more than `rules` in the namespace."""
        name = f"person-{next(_numbers)}"
        meta = {"name": name, "namespace": namespace}
        api = "rbac.authorization.k8s.io"
        self.kubectl.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": list(rules)},
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", **meta}],
            },
        )
        token = self.kubectl.kubectl("create", "token", name, "-n", namespace).stdout.strip()
        document = yaml.safe_load(self.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": token}
        path = self.state / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return path

    def gate(self) -> ApiGate:
        """A way to the API server that can be shut."""
        server = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        found = ApiGate(int(server.rpartition(":")[2]))
        document = yaml.safe_load(self.kubeconfig.read_text())
        document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{found.port}"
        found.kubeconfig = self.state / f"gate-{found.port}.kubeconfig"
        found.kubeconfig.write_text(yaml.safe_dump(document))
        return found


class ApiGate(Gate):
    """Before the API server, with a kubeconfig that leads through it."""

    kubeconfig: Path


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory, s3_server: RealS3, redis_server: RealRedis) -> Iterator[Plane]:
    """The control plane, with Frazil's CRDs, the store and the broker as Services, and four GPUs."""
    missing = [name for name in NEEDED if not (binaries.folder() / name).exists()]
    if missing:
        pytest.skip(f"Kubernetes' programs are not built here ({', '.join(missing)}): `make cluster-build` builds them")
    state = tmp_path_factory.mktemp("plane")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        env = {**os.environ, "PYTHONPATH": str(Path(binaries.__file__).parents[1])}
        log = (state / "plane.log").open("wb")
        command = [sys.executable, "-c", SERVE, str(state), str(free_port()), str(free_port())]
        processes.append(parent.start(command, env=env, stdout=log, stderr=log, cwd=state))
        wait_for(
            lambda: (state / "ready.json").exists() or _died(processes[0], state),
            what=f"the API server ({state}/plane.log)",
            seconds=120,
        )
        found = Plane(state, Kubectl(state), s3_server, redis_server)
        processes.append(_node(found, env))
        found.kubectl.namespace(SYSTEM, restricted=False)
        found.kubectl.apply(*(crd.crd(kind) for kind in (GenerationJob, TrainingJob)))
        _services(found)
        yield found
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(state / "etcd", ignore_errors=True)


def _died(process: subprocess.Popen[bytes], state: Path) -> bool:
    if process.poll() is not None:
        pytest.fail(f"the API server does not start:\n{(state / 'plane.log').read_text()[-3000:]}")
    return False


def _node(plane: Plane, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """A node of kwok's, with a kubelet's port that the API server forwards to."""
    port = free_port()
    ports = {9000: plane.store.port, 6379: plane.broker.port}
    forwards = [{"ports": [pod], "target": {"address": "127.0.0.1", "port": here}} for pod, here in ports.items()]
    forward = {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "ClusterPortForward",
        "metadata": {"name": "services"},
        "spec": {"forwards": forwards},
    }
    stages = Path(__file__).with_name("stages.yaml").read_text()
    (plane.state / "stages.yaml").write_text(f"{yaml.safe_dump(forward)}---\n{stages}")
    command = [
        str(binaries.folder() / "kwok"),
        f"--kubeconfig={plane.kubeconfig}",
        f"--config={plane.state / 'stages.yaml'}",
        f"--manage-single-node={NODE}",
        f"--server-address=127.0.0.1:{port}",
        f"--tls-cert-file={plane.state / 'pki' / 'apiserver.crt'}",
        f"--tls-private-key-file={plane.state / 'pki' / 'apiserver.key'}",
        "--v=WARN",
    ]
    log = (plane.state / "kwok.log").open("wb")
    process = parent.start(command, env=env, stdout=log, stderr=log, cwd=plane.state)
    size = {"cpu": "64", "memory": "256Gi", "pods": "500", "nvidia.com/gpu": "4"}
    plane.kubectl.kubectl(
        "create",
        "-f",
        "-",
        stdin=json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": NODE},
                "status": {
                    "allocatable": size,
                    "capacity": size,
                    "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                    "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
                },
            }
        ),
    )
    return process


def _services(plane: Plane) -> None:
    for name, port in (("store", 9000), ("broker", 6379)):
        meta = {"name": name, "namespace": SYSTEM, "labels": {"serves": name}}
        plane.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta,
                "spec": {"selector": {"serves": name}, "ports": [{"port": port, "targetPort": "main"}]},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": meta,
                "spec": {
                    "nodeName": NODE,
                    "containers": [{"name": name, "image": name, "ports": [{"name": "main", "containerPort": port}]}],
                },
            },
        )
        plane.kubectl.kubectl("wait", "pod", name, "-n", SYSTEM, "--for=condition=Ready", "--timeout=60s", seconds=90)


@pytest.fixture
def namespace(plane: Plane) -> str:
    """A namespace of this test."""
    return plane.namespace()


@pytest.fixture
def person(plane: Plane, frazil: Frazil, tmp_path: Path) -> Frazil:
    """Who calls the command, with the administrator's kubeconfig unless a test says otherwise."""
    frazil.env = {"KUBECONFIG": str(plane.kubeconfig), "HOME": str(tmp_path)}
    return frazil
