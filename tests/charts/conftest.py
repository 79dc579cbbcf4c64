"""The chart as Helm renders it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from testcluster import binaries

CHART = Path(__file__).resolve().parents[2] / "charts"
NAMESPACE = "frazil-system"


class Helm:
    """Renders the chart with values."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, command: str, values: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
        path = self._folder / "values.json"
        path.write_text(json.dumps(values))
        arguments = [binaries.folder() / "helm", command, *more, "-f", str(path)]
        return subprocess.run([str(one) for one in arguments], capture_output=True, text=True, timeout=60)

    def template(self, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        return self.run("template", values, "frazil", str(CHART), "-n", NAMESPACE)

    def objects(self, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """What would be installed, each with its namespace."""
        ended = self.template(values or {})
        assert ended.returncode == 0, ended.stderr
        found = [one for one in yaml.safe_load_all(ended.stdout) if one]
        for one in found:
            one["metadata"].setdefault("namespace", NAMESPACE)
        return found


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    if not (binaries.folder() / "helm").exists():
        pytest.skip("there is no Helm here: run `make cluster-build` (needs Go 1.26)")
    return Helm(tmp_path)
