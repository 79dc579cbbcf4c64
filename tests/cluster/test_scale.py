"""The operator under load and for a while: many small jobs on pretended nodes, and a few real ones amid constant trouble."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from testcluster.frazil import CHECKOUT

SYSTEM = "frazil-system"
SOAK_SECONDS = float(os.environ.get("FRAZIL_SOAK_SECONDS") or 180)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_jobs_end_alike_with_the_operator_killed_and_cost_what_is_said():
    """`frazil bench operator` itself, small: its counts are checked, its times are not."""
    ended = subprocess.run(
        [CHECKOUT / ".venv" / "bin" / "frazil", "bench", "operator", "--jobs", "200", "--kills", "3", "--json"],
        capture_output=True,
        text=True,
        timeout=1500,
        env={name: value for name, value in os.environ.items() if name != "KUBECONFIG"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    result = json.loads(ended.stdout)
    assert result["writes_per_job_to_running"] <= 4
    assert result["idle_writes"] == 0
    assert result["idle_resyncs"] >= 10
    assert result["kills"]["same_end_state"]
    ((state, count),) = result["end_states"].items()
    assert count == 200
    assert json.loads(state)["phase"] == "Complete"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_soak_of_trouble_loses_nothing_and_makes_nothing_twice(tenant, reference, dice):
    """Jobs one after the other, two at once, while parts of Frazil are killed every few seconds (FRAZIL_SOAK_SECONDS)."""
    kubectl = tenant.cluster.kubectl
    running: list[str] = []
    done: list[str] = []
    end = time.monotonic() + SOAK_SECONDS
    while time.monotonic() < end or running:
        if time.monotonic() < end and len(running) < 2:
            running.append(tenant.apply(tenant.job(f"soak-{len(done) + len(running)}")))
        phases = {name: tenant.status(name).get("phase") for name in running}
        assert "Failed" not in phases.values(), [tenant.why(name) for name in running if phases[name] == "Failed"]
        for name in [name for name in running if phases[name] == "Complete"]:
            running.remove(name)
            done.append(name)
        assert time.monotonic() < end + 600, phases
        component = dice.choice(["operator", "redis", "worker", None, None])
        if component and time.monotonic() < end:
            selector = f"app.kubernetes.io/component={component}"
            kubectl("delete", "pod", "-n", SYSTEM, "-l", selector, "--grace-period=0", "--force")
        time.sleep(dice.uniform(2, 6))
    assert len(done) >= 2
    for name in done:
        assert tenant.images(name) == reference
        assert tenant.status(name)["progress"]["summary"] == "6/6"
        jobs = tenant.children(name)
        assert len(jobs) == 1, "children were made twice"
        tenant.remove(name)
    assert tenant.cluster.list("pods", namespace=tenant.namespace, selector="frazil.dev/job-name=soak-0") == []
