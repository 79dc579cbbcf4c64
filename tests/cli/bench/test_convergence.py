"""`frazil bench convergence`: times to a loss from known runs, the jobs of the methods, and the command on a tiny model."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET

import pytest
import tiny_models
import yaml
from typer.testing import CliRunner

from frazil_cli.bench_convergence import METHODS
from frazil_cli.bench_convergence.drawing import curves
from frazil_cli.bench_convergence.methods import Settings, job_of
from frazil_cli.bench_convergence.rows import Run, rows_of

SETTINGS = Settings(steps=200, evaluations=20, max_freeze_ratio="0.3")


def run(method: str = "none", seed: int = 0, *, step: float = 1.0, fall: float = 1.0, frozen: float = 0.0) -> Run:
    """Eight steps of `step` seconds, of which the first two are twice as long; the loss falls by `fall` a step, from 10."""
    return Run(
        job="tiny",
        task="CausalLM",
        schedule="1F1B",
        stages=(2, 2),
        method=method,
        seed=seed,
        seconds=(2 * step,) * 2 + (step,) * 6,
        phases=("Warmup",) * 2 + ("Stable",) * 6,
        frozen=(frozen,) * 8,
        losses=tuple((at, 10 - fall * at) for at in (2, 4, 6, 8)),
    )


def test_steps_to_a_loss_lie_on_the_line_between_two_evaluations():
    assert run().steps_to(5.0) == 5
    assert run().steps_to(8.0) == 2
    assert math.isinf(run().steps_to(1.0))


def test_the_time_to_a_loss_is_that_of_the_steps_before_it():
    one = run()
    assert one.time_of(one.steps_to(5.0), one.seconds) == 2 + 2 + 3
    assert one.time_of(one.steps_to(4.5), one.seconds) == 2 + 2 + 3.5
    assert math.isinf(one.time_of(math.inf, one.seconds))


def test_a_slow_step_counts_in_the_measured_time_and_not_in_the_counted_one():
    one = Run.of({**run().document(), "seconds": [2.0, 2.0, 1.0, 50.0, 1.0, 1.0, 1.0, 1.0]})
    assert one.time_of(6, one.seconds) == 2 + 2 + 1 + 50 + 1 + 1
    assert one.time_of(6, one.counted) == 2 + 2 + 4
    assert one.stable_step == 1


def test_the_target_is_what_every_run_without_freezing_has_after_three_quarters_of_its_steps():
    rows = rows_of([run(seed=0), run(seed=1, fall=0.5), run("ours", seed=0, fall=9)])
    assert {row["target_loss"] for row in rows} == {10 - 0.5 * 6}


def test_a_faster_step_pays_only_beyond_what_the_further_steps_cost():
    rows = rows_of([run(), run("ours", step=0.8, fall=0.75, frozen=0.3)], target=7.0)
    none, ours = rows
    assert (none["steps_to_target"], ours["steps_to_target"]) == (3, 4)
    assert none["speedup"] == none["step_speedup_to_pay"] == 1
    assert ours["step_speedup"] == pytest.approx(1 / 0.8)
    assert ours["step_speedup_to_pay"] == pytest.approx(4 / 3)
    assert ours["speedup"] == ours["counted_speedup"] == pytest.approx(5 / (0.8 * 6))
    assert ours["mean_freeze_ratio"] == pytest.approx(0.3)


def test_speed_ups_are_taken_seed_by_seed():
    pairs = [(0, 1.0), (1, 3.0), (2, 2.0)]
    rows = rows_of(
        [run(seed=seed, step=slow) for seed, slow in pairs]
        + [run("ours", seed, step=slow / 2) for seed, slow in pairs],
        target=5.0,
    )
    assert rows[1]["speedup_spread"] == [2, 2]
    assert rows[1]["spread"] == [3.5, 10.5]


def test_a_target_that_is_not_reached_is_no_number_and_no_speed_up():
    none, ours = rows_of([run(), run("ours", fall=0.1)], target=5.0)
    assert (none["reached"], ours["reached"]) == (1, 0)
    assert ours["seconds_to_target"] is ours["step_speedup_to_pay"] is None
    assert ours["speedup"] == 0
    json.dumps([none, ours], allow_nan=False)


def test_methods_differ_in_freezing_alone():
    job = tiny_models.job("CausalLM", parallelism={"pipeline": 2}, workers={"gpusPerNode": 2})
    specs = {method: job_of(job, method, SETTINGS).spec for method in METHODS}
    without = {method: spec.model_dump(exclude={"freezing"}) for method, spec in specs.items()}
    assert all(spec == without["none"] for spec in without.values())
    published = specs["published"].freezing
    assert (published.selection, published.slack_percent, published.max_freeze_ratio) == ("Uniform", "0", "0.8")
    assert specs["ours"].freezing.max_freeze_ratio == "0.3"


def test_the_drawing_has_a_line_a_run_and_one_a_method():
    runs = [run(seed=0), run(seed=1), run("ours", 0), run("ours", 1)]
    drawing = ET.fromstring(curves(runs, rows_of(runs)))
    paths = drawing.findall(".//{http://www.w3.org/2000/svg}path")
    assert len(paths) == 4 + 2 + 1, "and the target"


def place(tmp_path, **parallelism):
    """A small Llama, a text, and a job beside them."""
    tiny_models.llama(tmp_path / "model")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.txt").write_text(tiny_models.CORPUS)
    job = tiny_models.job(
        "CausalLM",
        dataset={"uri": "data", "sequenceLength": 16},
        parallelism={"pipeline": 2, "microbatches": 2, **parallelism},
        workers={"gpusPerNode": 2 * parallelism.get("data", 1)},
    )
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(job.document()))
    return path


def test_a_job_of_more_ranks_is_refused(tmp_path):
    from frazil_cli.bench_convergence.measure import converge
    from frazil_jobs.base.exits import BadConfiguration

    with pytest.raises(BadConfiguration, match="data 2") as caught:
        converge([place(tmp_path, data=2)], SETTINGS, methods=METHODS, seeds=1)
    assert caught.value.field == "spec.parallelism"


@pytest.mark.slow
def test_all_methods_train_side_by_side_and_what_is_kept_is_not_made_again(tmp_path):
    from frazil_cli.main import app

    arguments = ["bench", "convergence", str(place(tmp_path)), "--seeds", "1", "--steps", "40", "--evaluations", "10"]
    arguments += ["--keep", str(tmp_path / "kept"), "--plot", str(tmp_path / "curves.svg"), "--json"]
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    document = json.loads(found.stdout)
    assert [row["method"] for row in document["rows"]] == list(METHODS)
    none, uniform, published, ours = document["rows"]
    assert none["mean_freeze_ratio"] == 0
    assert 0 < ours["mean_freeze_ratio"] <= 0.31
    assert 0 < uniform["mean_freeze_ratio"] <= 0.31
    assert published["mean_freeze_ratio"] > 0
    assert none["reached"] == 1
    assert none["final_loss"] < 5.0
    assert all(row["step_seconds"] > 0 and row["steps"] == 40 for row in document["rows"])
    assert "<path" in (tmp_path / "curves.svg").read_text()
    again = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert json.loads(again.stdout)["rows"] == document["rows"]
