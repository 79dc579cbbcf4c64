"""etcd, the API server, the controller manager and the scheduler, with native gang scheduling on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testcluster import pki
from testcluster.processes import Processes

BRIDGE = "frazil0"
ADDRESS = "10.88.0.1"
POD_NETWORK = "10.88.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
FIRST_SERVICE = "10.96.0.1"
GANGS = "--feature-gates=GenericWorkload=true"


@dataclass(frozen=True)
class ControlPlane:
    """The processes of one control plane."""

    state: Path
    bin: Path
    port: int = 6443
    etcd_port: int = 23790
    gangs: bool = True
    """Kubernetes' own gang scheduling."""

    @property
    def processes(self) -> Processes:
        """Its processes."""
        return Processes(self.state)

    @property
    def etcd(self) -> str:
        """Where etcd answers."""
        return f"http://127.0.0.1:{self.etcd_port}"

    @property
    def pki(self) -> Path:
        """Its certificates."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.state / "kubeconfig"

    def start(self, *, unreachable_seconds: int = 20) -> None:
        """Start what doesn't run. A node that is silent for `unreachable_seconds` is taken for lost."""
        pki.make(self.pki, address=ADDRESS, service=FIRST_SERVICE)
        pki.kubeconfig(self.pki, self.kubeconfig, server=f"https://127.0.0.1:{self.port}")
        etcd, run = self.state / "etcd", self.processes
        peers = f"http://127.0.0.1:{self.etcd_port + 10}"
        run.start(
            "etcd",
            [
                self.bin / "etcd",
                f"--data-dir={etcd}",
                f"--listen-client-urls={self.etcd}",
                f"--advertise-client-urls={self.etcd}",
                f"--listen-peer-urls={peers}",
                f"--initial-advertise-peer-urls={peers}",
                f"--initial-cluster=default={peers}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        )
        self.start_apiserver()
        common = [
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
            *([GANGS] if self.gangs else []),
            "--kube-api-qps=300",
            "--kube-api-burst=600",
        ]
        run.start(
            "kube-controller-manager",
            [
                self.bin / "kube-controller-manager",
                *common,
                f"--service-account-private-key-file={self.pki / 'service-account.key'}",
                f"--root-ca-file={self.pki / 'ca.crt'}",
                "--use-service-account-credentials",
                f"--node-monitor-grace-period={unreachable_seconds}s",
                "--node-monitor-period=2s",
                "--concurrent-job-syncs=20",
            ],
        )
        run.start("kube-scheduler", [self.bin / "kube-scheduler", *common])

    def start_apiserver(self) -> None:
        """Start the API server, unless it runs."""
        pki_folder = self.pki
        self.processes.start(
            "kube-apiserver",
            [
                self.bin / "kube-apiserver",
                f"--etcd-servers={self.etcd}",
                f"--secure-port={self.port}",
                f"--advertise-address={ADDRESS}",
                f"--service-cluster-ip-range={SERVICE_NETWORK}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={pki_folder / 'service-account.pub'}",
                f"--service-account-signing-key-file={pki_folder / 'service-account.key'}",
                f"--client-ca-file={pki_folder / 'ca.crt'}",
                f"--tls-cert-file={pki_folder / 'apiserver.crt'}",
                f"--tls-private-key-file={pki_folder / 'apiserver.key'}",
                f"--kubelet-client-certificate={pki_folder / 'kubelet-client.crt'}",
                f"--kubelet-client-key={pki_folder / 'kubelet-client.key'}",
                "--kubelet-preferred-address-types=InternalIP",
                f"--token-auth-file={pki_folder / 'tokens.csv'}",
                "--authorization-mode=Node,RBAC",
                "--allow-privileged",
                *([GANGS, "--runtime-config=scheduling.k8s.io/v1beta1=true"] if self.gangs else []),
                "--max-requests-inflight=2000",
                "--max-mutating-requests-inflight=1000",
            ],
        )
