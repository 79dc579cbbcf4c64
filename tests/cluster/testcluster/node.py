"""A real node: containerd, kubelet and the CNI bridge. A second one on the same machine has folders and ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from testcluster.controlplane import ADDRESS, BRIDGE, POD_NETWORK
from testcluster.processes import Processes

PAUSE = "frazil.test/pause:1"


@dataclass(frozen=True)
class Node:
    """One node; `number` 0 is the first."""

    state: Path
    bin: Path
    kubeconfig: Path
    number: int = 0

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return f"node-{self.number}"

    @property
    def folder(self) -> Path:
        """Its files."""
        return self.state / self.name

    @property
    def socket(self) -> Path:
        """containerd's."""
        return self.folder / "containerd.sock"

    @property
    def processes(self) -> Processes:
        """Processes of the whole cluster."""
        return Processes(self.state)

    def start(self) -> None:
        """Start containerd, then the kubelet."""
        self.start_containerd()
        self.start_kubelet()

    def start_containerd(self) -> None:
        """containerd, with what this kind of machine needs."""
        cni = self.folder / "cni"
        cni.mkdir(parents=True, exist_ok=True)
        conflist = {
            "cniVersion": "0.4.0",
            "name": f"frazil-{self.number}",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": True,
                    "ipMasq": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [
                            [
                                {
                                    "subnet": POD_NETWORK,
                                    "rangeStart": f"10.88.{self.number + 1}.2",
                                    "rangeEnd": f"10.88.{self.number + 1}.250",
                                    "gateway": ADDRESS,
                                }
                            ]
                        ],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self.folder / "ipam"),
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        (cni / "10-frazil.conflist").write_text(json.dumps(conflist))
        config = f"""
version = 2
root = "{self.folder / "containerd"}"
state = "{self.folder / "run"}"
[grpc]
  address = "{self.socket}"
[ttrpc]
  address = "{self.socket}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  max_container_log_line_size = 65536
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{cni}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.folder / "opt"}"
"""
        path = self.folder / "containerd.toml"
        path.write_text(config)
        self.processes.start(f"containerd-{self.number}", ["containerd", "--config", path])
        until = time.monotonic() + 30
        while self.ctr("version", check=False).returncode:
            if time.monotonic() > until:
                raise TimeoutError(f"containerd does not answer; see {self.processes.log(f'containerd-{self.number}')}")
            time.sleep(0.2)

    def start_kubelet(self) -> None:
        """The kubelet, registered under the node's name."""
        port = 10250 + self.number * 10
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "port": port,
            "readOnlyPort": 0,
            "healthzPort": 10248 + self.number * 100 + 1,
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "evictionHard": {},
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "nodeStatusUpdateFrequency": "4s",
            "nodeStatusReportFrequency": "10s",
            "maxPods": 200,
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": str(self.folder / "pod-logs"),
            "syncFrequency": "10s",
            "fileCheckFrequency": "1h",
            "shutdownGracePeriod": "0s",
            "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},  # tests kill on purpose, and wait for the next
        }
        path = self.folder / "kubelet.json"
        path.write_text(json.dumps(config))
        self.processes.start(
            f"kubelet-{self.number}",
            [
                self.bin / "kubelet",
                f"--config={path}",
                f"--kubeconfig={self.kubeconfig}",
                f"--root-dir={self.folder / 'kubelet'}",
                f"--hostname-override={self.name}",
                f"--node-ip={ADDRESS}",
                f"--cert-dir={self.folder / 'kubelet-pki'}",
            ],
        )

    def ctr(self, *arguments: str, check: bool = True, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        """containerd's own command."""
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=seconds)

    def load(self, archive: Path) -> None:
        """Import an image archive."""
        self.ctr("images", "import", str(archive))

    def kill(self) -> None:
        """The node is lost: kubelet and containerd die, and so do all containers; nobody tells the API server."""
        self.processes.kill(f"kubelet-{self.number}")
        self._kill_containers()
        self.processes.kill(f"containerd-{self.number}")

    def stop(self) -> None:
        """End everything of the node and take its mounts away."""
        self.processes.stop(f"kubelet-{self.number}")
        self._kill_containers()
        self.processes.stop(f"containerd-{self.number}")
        unmount_below(self.folder)

    def _kill_containers(self) -> None:
        """Shims and what runs in them, found by the socket that they were started with."""
        socket = str(self.socket).encode()
        shims = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    entry.name.isdecimal()
                    and b"containerd-shim" in (line := (entry / "cmdline").read_bytes())
                    and socket in line
                ):
                    shims.append(int(entry.name))
        children = [child for shim in shims for child in _descendants(shim)]
        for pid in [*children, *shims]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found


def unmount_below(folder: Path, *, only: str = "") -> None:
    """Take away every mount below a folder, the innermost first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [mount for mount in mounts if mount.startswith(f"{folder}/") and only in mount]
    for mount in sorted(inside, key=len, reverse=True):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, timeout=30)
