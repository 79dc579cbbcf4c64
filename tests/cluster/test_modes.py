"""One GenerationJob a mode on the real cluster: the bytes of a local run, the mode and its measured distance in manifest
and gallery, and the reason where a sampler can't take stale steps.
"""

from __future__ import annotations

import json

import pytest
from frazil_command import Frazil
from testcluster.tenant import PROMPTS

STEPS = 20
MODES = {
    "guided": {"mode": "Guided", "switching": {"budget": "40"}},
    "hybrid": {"mode": "Hybrid", "switching": {"windowPercent": 20}},
}


def approximate(tenant, name: str, *, scheduler: str = "DDIMScheduler", **parallelism) -> dict:
    return tenant.job(
        name,
        prompts={"inline": PROMPTS[:2], "perShard": 2},
        sampling={"steps": STEPS, "scheduler": scheduler},
        parallelism={"compareWithExact": 1, **parallelism},
    )


def pages(tenant, status: dict) -> tuple[dict, str]:
    """The manifest and the gallery."""
    prefix = str(status["outputs"]["uri"]).removeprefix("s3://frazil/results/")
    return json.loads(tenant.read(f"{prefix}manifest.json")), tenant.read(f"{prefix}index.html").decode()


@pytest.mark.parametrize("name", ["guided", pytest.param("hybrid", marks=pytest.mark.slow)])
def test_a_mode_makes_the_bytes_of_a_local_run_and_states_its_distance(tenant, tmp_path, name):
    job = approximate(tenant, name, **MODES[name])
    tenant.apply(job)
    status = tenant.until(name, "Complete")
    manifest, gallery = pages(tenant, status)
    assert manifest["mode"] == MODES[name]["mode"]
    assert manifest["distance"]["compared"] == 2, "one prompt is asked for, and its whole batch is made exactly"
    assert 20 < float(manifest["distance"]["worstDb"]) < 100
    assert f"{manifest['distance']['worstDb']} dB" in gallery
    frazil = Frazil(tmp_path)
    frazil.env = tenant.config("read").to_env() | {"FRAZIL_STORE": ""}
    ended = frazil("run", frazil.write_job(job), "--store", frazil.store, "--ranks", "2", "--threads", "1")
    assert ended.returncode == 0, ended.stderr + frazil.logs()
    assert tenant.images(name) == frazil.stored()


@pytest.mark.slow
def test_a_sampler_that_draws_noise_makes_exact_steps_and_says_so(tenant):
    name = tenant.apply(
        approximate(tenant, "ancestral", scheduler="EulerAncestralDiscreteScheduler", **MODES["guided"])
    )
    status = tenant.until(name, "Complete")
    manifest, gallery = pages(tenant, status)
    assert "EulerAncestralDiscreteScheduler" in manifest["wholeBecause"]
    assert "EulerAncestralDiscreteScheduler" in gallery
    events = tenant.cluster.kubectl(
        "get", "events", "-n", tenant.namespace, "--field-selector", f"involvedObject.name={name}"
    )
    assert "EulerAncestralDiscreteScheduler" in events.stdout
