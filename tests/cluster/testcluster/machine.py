"""Whether this machine can hold a cluster."""

from __future__ import annotations

import os
import subprocess

from testcluster import binaries


def reason_not_to() -> str | None:
    """Why a cluster can't run here; None when it can. Builds nothing."""
    if os.geteuid() != 0:
        return "a cluster needs root (containers, network)"
    built = all((binaries.folder() / name).exists() for name in binaries.PROGRAMS)
    if not built and binaries.go() is None:
        return "the cluster's programs are not built, and there is no Go to build them with (Go 1.26)"
    try:
        binaries.require_debian_packages()
    except binaries.CannotBuild as error:
        return str(error)
    bridge = ["ip", "link", "add", "frazil-probe", "type", "bridge"]
    if not _works(bridge):
        return "this machine lets nobody make a network bridge (CAP_NET_ADMIN)"
    _works(["ip", "link", "delete", "frazil-probe"])
    if not _works(["unshare", "--mount", "true"]):
        return "this machine lets nobody make a mount namespace (CAP_SYS_ADMIN)"
    return None


def _works(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
