"""Plans are made where no torch is."""

from __future__ import annotations

import subprocess
import sys

MODULES = "actions comparison dag drawing estimate models noise partition program published schedules simulator timings"


def test_no_module_of_planning_loads_torch() -> None:
    imports = "; ".join(f"import frazil_jobs.training.planning.{name}" for name in MODULES.split())
    code = (
        f"{imports}; import sys; print([name for name in sys.modules if name.split('.')[0] in ('torch', 'diffusers')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.strip() == "[]"
