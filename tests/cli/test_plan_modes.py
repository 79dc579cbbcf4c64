"""What `frazil plan` says that each mode would cost a job: on the job's own grid, and only what the job can have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import yaml
from frazil_command import job_of

from frazil_cli.machine import Machine
from frazil_cli.plandrawing import draw
from frazil_cli.planning import make_plan
from frazil_cli.prepare import Wishes

Planned = Callable[..., dict[str, Any]]
FLUX = {
    "spec.sampling": {
        "steps": 20,
        "height": 8,
        "width": 8,
        "negativePrompt": "bad",
        "extra": {"true_cfg_scale": 4.0, "max_sequence_length": 48},
    }
}
"""Two calls a step, no stacked one."""


@pytest.fixture(scope="session")
def flux_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save("flux", tmp_path_factory.mktemp("model") / "flux")


@pytest.fixture
def planned(tiny_model: Path, tmp_path: Path) -> Planned:
    def call(model: Path = tiny_model, **changes: Any) -> dict[str, Any]:
        asked = {"conditioning": 2, **changes.get("spec.parallelism", {})}
        gpus = asked["conditioning"] * asked.get("pipeline", 1) * asked.get("sequence", 1)
        changes = {"spec.workers": {"gpusPerNode": gpus}, **changes}
        file = tmp_path / "job.yaml"
        file.write_text(yaml.safe_dump(job_of(model, **changes)))
        wishes = Wishes(device="cpu", ranks=None, replicas=None, threads=None)
        plan = make_plan(file, store=None, wishes=wishes, quick=False, machine=Machine(8, ()))
        return {**plan.document, "_problems": plan.problems}

    return call


def rows_by_mode(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The row on the job's grid of each mode: the first."""
    rows: dict[str, dict[str, Any]] = {}
    for row in document["modes"]["rows"]:
        rows.setdefault(row["mode"], row)
    return rows


def own(document: dict[str, Any]) -> dict[str, Any]:
    (row,) = [row for row in document["modes"]["rows"] if row["own"]]
    return row


@pytest.mark.parametrize(
    ("parallelism", "gpus"),
    [
        ({"mode": "Exact"}, 2),
        ({"mode": "Exact", "conditioning": 1}, 1),
        ({"mode": "Hybrid"}, 2),
        ({"mode": "Guided"}, 2),
        ({"mode": "Guided", "conditioning": 1}, 1),
        ({"mode": "Guided", "pipeline": 2}, 4),
        ({"mode": "Guided", "conditioning": 1, "pipeline": 2}, 2),
    ],
)
def test_the_jobs_own_row_is_of_its_grid_and_is_its_bound(
    planned: Planned, parallelism: dict[str, Any], gpus: int
) -> None:
    document = planned(**{"spec.parallelism": parallelism})
    row = own(document)
    degrees = {"conditioning": 2, "pipeline": 1, "sequence": 1} | {
        name: value for name, value in parallelism.items() if name != "mode"
    }
    assert (row["mode"], row["gpus"], row["degrees"]) == (parallelism["mode"], gpus, degrees)
    assert document["speedUp"]["bound"] == row["bound"]


def test_stages_are_counted_as_stages_and_not_as_reuse(planned: Planned) -> None:
    reused = own(planned(**{"spec.parallelism": {"mode": "Guided"}}))
    document = planned(**{"spec.parallelism": {"mode": "Guided", "pipeline": 2}})
    assert "forecast" not in document["changes"]
    staged = own(document)
    line = own(planned(**{"spec.parallelism": {"mode": "Guided", "conditioning": 1, "pipeline": 2}}))
    assert "activations are up to 1 step old" in staged["changes"]
    assert "forecast" in reused["changes"]
    assert "difference is carried" in line["changes"]
    assert 2 < staged["bound"] < 4
    assert staged["bound"] == line["bound"], "half of the blocks, and both branches' whole steps on two ranks at least"
    latent = own(planned())["bytesPerStep"] // 2
    crossing = line["bytesPerStep"] - latent
    assert crossing > 0
    assert staged["bytesPerStep"] == 2 * crossing + 2 * 3 * latent, "two lines; each prediction to three other ranks"


def test_sequence_parts_share_what_the_split_leaves(planned: Planned, flux_model: Path) -> None:
    document = planned(flux_model, **{**FLUX, "spec.parallelism": {"sequence": 2}})
    parts = own(document)
    assert (parts["gpus"], parts["bound"], document["speedUp"]["bound"]) == (4, 4.0, 4.0)
    assert parts["bytesPerStep"] is None, "its all-to-alls are not counted"
    rows = rows_by_mode(document)
    assert rows["Guided"]["bound"] == 2 * rows_by_mode(planned(flux_model, **FLUX))["Guided"]["bound"]
    assert "can't share their tokens" in rows["Hybrid"]["changes"]
    refused = planned(**{"spec.parallelism": {"sequence": 2}})
    assert own(refused)["bound"] is refused["speedUp"]["bound"] is None
    assert [problem.field for problem in refused["_problems"]] == ["spec.parallelism.sequence"]


def test_a_mode_that_the_pipeline_cannot_have_is_said_to_be_none(planned: Planned, flux_model: Path) -> None:
    rows = rows_by_mode(planned(flux_model, **FLUX))
    assert rows["Hybrid"]["bound"] is None
    assert "can't be chosen here: the window of mode Hybrid takes the prompt's branch" in rows["Hybrid"]["changes"]
    assert rows["Guided"]["bound"] > rows["Exact"]["bound"] == 2.0


def test_a_sampler_that_draws_noise_makes_every_step_whole(planned: Planned) -> None:
    document = planned(
        **{"spec.sampling.scheduler": "EulerAncestralDiscreteScheduler", "spec.parallelism": {"mode": "Guided"}}
    )
    rows = rows_by_mode(document)
    for mode in ("Hybrid", "Guided"):
        assert (rows[mode]["bound"], rows[mode]["approximatedSteps"]) == (2.0, 0)
        assert "every step is whole, because" in rows[mode]["changes"]
    assert document["speedUp"]["bound"] == 2.0


def test_a_budget_of_no_drift_promises_no_speed(planned: Planned) -> None:
    row = own(planned(**{"spec.parallelism": {"mode": "Guided", "switching": {"budget": "inf"}}}))
    assert (row["bound"], row["changes"]) == (2.0, "nothing")


def test_the_speed_up_that_a_person_reads_is_the_bold_row(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    document = planned(**{"spec.parallelism": {"mode": "Guided", "pipeline": 2}})
    draw(document, Console(width=160))
    text = capsys.readouterr().out
    bound = own(document)["bound"]
    assert f"at most {bound:.3g}×" in text
    assert f"{bound:.2f}x" in text
    assert "4 (2 × 2 × 1)" in text
