"""The cluster as tests and people use it: up, down, a second node, fake GPUs, and what kubectl can do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testcluster import binaries, environment, images
from testcluster.binaries import say
from testcluster.controlplane import ADDRESS, BRIDGE, FIRST_SERVICE, SERVICE_NETWORK, ControlPlane
from testcluster.node import Node, unmount_below
from testcluster.processes import Processes

CLAIM = "frazil-environment"
GPU = "nvidia.com/gpu"


def default_state() -> Path:
    """The state folder where none is named."""
    return Path(tempfile.gettempdir()) / "frazil-cluster"


@dataclass(frozen=True)
class Cluster:
    """One cluster on this machine, described by its state folder; or somebody else's, described by `existing`."""

    state: Path = field(default_factory=default_state)
    existing: Path | None = None
    """Kubeconfig of a cluster that is only used: nothing of it is started, stopped or pretended."""

    @property
    def bin(self) -> Path:
        """The programs."""
        return binaries.folder()

    def program(self, name: str) -> Path:
        """One of the programs; for somebody else's cluster, where none may have been built, also that of the PATH."""
        built = self.bin / name
        if self.existing is None or built.exists():
            return built
        if (found := shutil.which(name)) is None:
            raise binaries.CannotBuild(f"there is no {name} on the PATH, to use the cluster of {self.existing} with")
        return Path(found)

    def require_ours(self) -> None:
        """Raises NotOurs where the cluster is somebody else's."""
        if self.existing is not None:
            raise NotOurs(f"it changes nodes or kills parts of the cluster, and that of {self.existing} is somebody's")

    @property
    def processes(self) -> Processes:
        """The processes."""
        return Processes(self.state)

    @property
    def control_plane(self) -> ControlPlane:
        """The control plane."""
        return ControlPlane(self.state, self.bin)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.existing or self.control_plane.kubeconfig

    def node(self, number: int = 0) -> Node:
        """A node, running or not."""
        return Node(self.state, self.bin, self.kubeconfig, number)

    def up(self, *, nodes: int = 1, gpus: int = 4, checkout: Path | None = None) -> None:
        """Bring everything up that doesn't run. It can be called again at any time."""
        if self.existing is not None:
            return
        started = time.monotonic()
        binaries.require_debian_packages()
        binaries.build()
        archives = [images.pause(), images.base()]
        self.state.mkdir(parents=True, exist_ok=True)
        network_up()
        self.control_plane.start()
        self.until(
            "the API server answers", lambda: self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0
        )
        self._dns()
        self._proxy()
        for number in range(nodes):
            self.add_node(number, archives)
        for number in range(nodes):
            self.gpus(gpus, node=f"node-{number}")
        if checkout is not None:
            environment.make(self.state / "environment", checkout=checkout, programs=[self.bin / "minio"])
        say(f"up: {nodes} node(s) in {time.monotonic() - started:.0f} s; KUBECONFIG={self.kubeconfig}")

    def down(self) -> None:
        """End everything and leave nothing but the logs: processes, mounts, network. Also after a crash."""
        for number in range(9, -1, -1):
            if self.node(number).folder.exists():
                self.node(number).stop()
        for name in self.processes.names():
            self.processes.stop(name)
        unmount_below(self.state)
        network_down()
        self.keep_logs()
        shutil.rmtree(self.state, ignore_errors=True)
        say("down")

    @property
    def kept_logs(self) -> Path:
        """The logs of the last cluster that was here."""
        return self.state.with_name(f"{self.state.name}-logs")

    def keep_logs(self) -> None:
        """Put the logs beside the state, in place of those of the cluster before."""
        logs = self.state / "logs"
        if logs.exists():
            shutil.rmtree(self.kept_logs, ignore_errors=True)
            logs.rename(self.kept_logs)

    def add_node(self, number: int, archives: Sequence[Path] | None = None) -> Node:
        """Start a node and wait until it's ready."""
        self.require_ours()
        node = self.node(number)
        node.start_containerd()
        present = node.ctr("images", "list", "-q").stdout.split()
        for archive, image in zip(
            archives or [images.pause(), images.base()], (images.PAUSE, images.BASE), strict=True
        ):
            if image not in present and f"docker.io/{image}" not in present:
                node.load(archive)
        node.start_kubelet()
        self.until(f"{node.name} is ready", lambda: self.is_ready(node.name), seconds=120)
        return node

    def gpus(self, count: int, *, node: str = "node-0", resource: str = GPU) -> None:
        """Let a node have so many GPUs that aren't there."""
        self.require_ours()
        pointer = f"/status/capacity/{resource.replace('/', '~1')}"
        patch = json.dumps([{"op": "add", "path": pointer, "value": str(count)}])
        self.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", patch)
        self.until(
            f"{node} has {count} GPUs to give",
            lambda: self.get("node", node)["status"]["allocatable"].get(resource) == str(count),
            seconds=60,
        )

    def environment_in(self, namespace: str) -> None:
        """A read-only claim in a namespace with the environment of the tests."""
        if self.existing is not None:
            return  # its images hold one
        folder = self.state / "environment"
        size = {"storage": "1Gi"}
        volume = f"{CLAIM}-{namespace}"
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {
                    "capacity": size,
                    "accessModes": ["ReadOnlyMany"],
                    "hostPath": {"path": str(folder)},
                    "storageClassName": "",
                    "claimRef": {"namespace": namespace, "name": CLAIM},
                    "persistentVolumeReclaimPolicy": "Retain",
                },
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": CLAIM, "namespace": namespace},
                "spec": {
                    "accessModes": ["ReadOnlyMany"],
                    "resources": {"requests": size},
                    "storageClassName": "",
                    "volumeName": volume,
                },
            },
        )

    def namespace(self, name: str, *, restricted: bool = True) -> str:
        """Make a namespace; by default one that enforces Pod Security `restricted`."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        self.until(
            f"{name} has its service account",
            lambda: self.kubectl("get", "serviceaccount", "default", "-n", name, check=False).returncode == 0,
        )
        return name

    def kubectl(
        self, *arguments: str | Path, stdin: str | None = None, check: bool = True, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl against this cluster."""
        command = [str(self.program("kubectl")), "--kubeconfig", str(self.kubeconfig), *map(str, arguments)]
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
        if check and ended.returncode:
            raise KubectlFailed(f"{' '.join(map(str, arguments))}: {ended.stderr.strip()}")
        return ended

    def helm(
        self, *arguments: str | Path, check: bool = True, seconds: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run Helm against this cluster."""
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        command = [str(self.program("helm")), *map(str, arguments)]
        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds)
        if check and ended.returncode:
            raise KubectlFailed(f"helm {' '.join(map(str, arguments))}: {ended.stderr.strip()[-3000:]}")
        return ended

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any]:
        """One object. Raises KubectlFailed when there is none."""
        where = ["-n", namespace] if namespace else []
        return dict(json.loads(self.kubectl("get", kind, name, *where, "-o", "json").stdout))

    def list(self, kind: str, *, namespace: str | None = None, selector: str = "") -> list[dict[str, Any]]:
        """Objects of a kind."""
        where = ["-n", namespace] if namespace else ["-A"]
        select = ["-l", selector] if selector else []
        return list(json.loads(self.kubectl("get", kind, *where, *select, "-o", "json").stdout)["items"])

    def until(self, what: str, holds: Callable[[], Any], *, seconds: float = 60, pause: float = 0.3) -> Any:
        """Wait until something holds; what it gave. Raises TimeoutError with the words."""
        end = time.monotonic() + seconds
        last: Exception | None = None
        while time.monotonic() < end:
            try:
                if found := holds():
                    return found
                last = None
            except (KubectlFailed, KeyError, IndexError, subprocess.TimeoutExpired) as error:
                last = error
            time.sleep(pause)
        raise TimeoutError(f"after {seconds:.0f} s it does not hold that {what}" + (f" ({last})" if last else ""))

    def restart_apiserver(self) -> None:
        """The API server is killed and comes back."""
        self.require_ours()
        self.processes.kill("kube-apiserver")

        def back() -> bool:
            self.control_plane.start_apiserver()  # again, where the dying one still held the port
            return self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0

        self.until("the API server answers", back, seconds=120)

    def is_up(self) -> bool:
        """Whether the API server answers."""
        return self.kubeconfig.exists() and self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0

    def logs(self, *, lines: int = 40) -> str:
        """The last lines of every process, for who wonders what went wrong."""
        return "\n".join(f"==> {name}\n{end}" for name, end in self.processes.log_ends(lines=lines).items())

    def processes_of(self, pods: Sequence[Mapping[str, Any]], word: str) -> list[int]:
        """Processes of this machine in containers of these pods that have a word (a module, a program) in their command."""
        self.require_ours()
        containers = {
            status["containerID"].rpartition("/")[2]
            for pod in pods
            for kind in ("containerStatuses", "initContainerStatuses")
            for status in pod["status"].get(kind, ())
            if status.get("containerID")
        }
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and word in (entry / "cmdline").read_text().split("\0"):
                    cgroup = (entry / "cgroup").read_text()
                    if any(container in cgroup for container in containers):
                        found.append(int(entry.name))
            except OSError:
                continue
        return sorted(found)

    def is_ready(self, name: str) -> bool:
        """Whether a node is."""
        conditions = self.get("node", name)["status"].get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _dns(self) -> None:
        corefile = self.state / "Corefile"
        corefile.write_text(
            f"""cluster.local:53 in-addr.arpa:53 {{
    bind {ADDRESS}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {self.kubeconfig}
        pods insecure
        ttl 1
    }}
}}
.:53 {{
    bind {ADDRESS}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
        )
        self.processes.start("coredns", [self.bin / "coredns", "-conf", corefile])

    def _proxy(self) -> None:
        config = self.state / "kube-proxy.json"
        text = json.dumps(
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "nftables",
                "clientConnection": {"kubeconfig": str(self.kubeconfig)},
                "conntrack": {"maxPerCore": 0, "min": 0},
                "healthzBindAddress": "127.0.0.1:10256",
                "metricsBindAddress": "127.0.0.1:10249",
            }
        )
        if not config.exists() or config.read_text() != text:  # written again, it would end the proxy that runs by it
            config.write_text(text)
        self.processes.start(
            "kube-proxy", [self.bin / "kube-proxy", f"--config={config}", "--hostname-override=node-0"]
        )


class KubectlFailed(Exception):
    """kubectl or Helm said no."""


class NotOurs(unittest.SkipTest):
    """The cluster is somebody else's: it's only used. The test that asked for more is skipped, with these words."""


def network_up() -> None:
    """The bridge that pods and the control plane meet on."""
    if subprocess.run(["ip", "link", "show", BRIDGE], capture_output=True, timeout=30).returncode:
        _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "replace", f"{ADDRESS}/16", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def network_down() -> None:
    """Take the bridge, the pods' network namespaces and the rules away."""
    subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True, timeout=30)
    for link in json.loads(
        subprocess.run(["ip", "-j", "netns", "list"], capture_output=True, text=True, timeout=30).stdout or "[]"
    ):
        if str(link.get("name", "")).startswith("cni-"):
            subprocess.run(["ip", "netns", "delete", link["name"]], capture_output=True, timeout=30)
    subprocess.run(["nft", "delete", "table", "ip", "kube-proxy"], capture_output=True, timeout=30)
    subprocess.run(["nft", "delete", "table", "ip6", "kube-proxy"], capture_output=True, timeout=30)
    rules = subprocess.run(
        ["iptables-save", "-t", "nat"], capture_output=True, text=True, timeout=30
    ).stdout.splitlines()
    ours = {
        word
        for line in rules
        if ADDRESS.rpartition(".")[0].rpartition(".")[0] in line
        for word in line.split()
        if word.startswith("CNI-")
    }
    for line in rules:
        if line.startswith("-A") and any(chain in line for chain in ours):
            subprocess.run(
                ["iptables", "-t", "nat", *line.replace("-A", "-D", 1).replace('"', "").split()],
                capture_output=True,
                timeout=30,
            )
    for chain in ours:
        subprocess.run(["iptables", "-t", "nat", "-F", chain], capture_output=True, timeout=30)
        subprocess.run(["iptables", "-t", "nat", "-X", chain], capture_output=True, timeout=30)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


__all__ = [
    "ADDRESS",
    "CLAIM",
    "FIRST_SERVICE",
    "GPU",
    "SERVICE_NETWORK",
    "Cluster",
    "KubectlFailed",
    "NotOurs",
    "default_state",
]
