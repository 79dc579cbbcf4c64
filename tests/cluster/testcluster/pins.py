"""Versions of everything that the cluster is made of, in one place. The cache is keyed by them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

KUBERNETES: Final = "v1.37.2"
HELM: Final = "v4.3.1"
MINIO: Final = "v0.0.0-20260212201848-7aac2a2c5b7c"
COREDNS: Final = "v1.15.0"
KWOK: Final = "v0.8.0"
DEBIAN: Final = "bookworm"

GO_MODULE: Final = Path(__file__).parent.parent / "go" / "kubernetes"
KUBERNETES_PARTS: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
TOOLS: Final = {
    "helm": f"helm.sh/helm/v4/cmd/helm@{HELM}",
    "minio": f"github.com/minio/minio@{MINIO}",
    "coredns": f"github.com/coredns/coredns@{COREDNS}",
    "kwok": f"sigs.k8s.io/kwok/cmd/kwok@{KWOK}",
}
DEBIAN_PACKAGES: Final = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "debootstrap": "debootstrap",
    "buildah": "buildah",
    "openssl": "openssl",
    "cc": "gcc",
}
"""A program that tells whether it's there, and the package that brings it."""


def key() -> str:
    """Names the cache: another pin, another folder."""
    digest = hashlib.sha256()
    for path in sorted(GO_MODULE.glob("*")):
        digest.update(path.read_bytes())
    digest.update(repr(sorted(TOOLS.items())).encode())
    return digest.hexdigest()[:16]
