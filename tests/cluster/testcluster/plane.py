"""A control plane on its own, beside any other cluster of this machine: it ends with the process that serves it."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

from frazil_jobs.base import parent
from testcluster import binaries
from testcluster.cluster import Cluster
from testcluster.controlplane import ControlPlane

PORT, ETCD_PORT = 6453, 23890
READY = "ready.json"
PROGRAMS = ("kubernetes", "kwok")


def serve(state: Path) -> None:
    """Start a fresh control plane in a folder, say so in its `ready.json`, and end everything on SIGTERM.

    The file holds `kubeconfig` and `kwok`, both paths.
    """
    signal.signal(signal.SIGTERM, lambda *_: _stop())
    parent.die_with_parent(signal_number=signal.SIGTERM)
    programs = binaries.build(*PROGRAMS)
    plane = ControlPlane(state, programs, port=PORT, etcd_port=ETCD_PORT)
    try:
        plane.start()
        cluster = Cluster(state)
        cluster.until("the API server answers", lambda: _answers(cluster), seconds=90)
        told = {"kubeconfig": str(plane.kubeconfig), "kwok": str(programs / "kwok")}
        (state / "ready.new").write_text(json.dumps(told))
        (state / "ready.new").replace(state / READY)
        while all(plane.processes.running(name) for name in plane.processes.names()):
            time.sleep(0.5)
    finally:
        for name in reversed(plane.processes.names()):
            plane.processes.stop(name, seconds=5)
        shutil.rmtree(state / "etcd", ignore_errors=True)


def _answers(cluster: Cluster) -> bool:
    return cluster.kubectl("get", "--raw", "/readyz", check=False).returncode == 0


def _stop() -> None:
    raise SystemExit(143)
