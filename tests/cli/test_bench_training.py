"""`frazil bench training`: what it compares, and that an emulated stage sleeps exactly what it should."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from frazil_cli.bench_training.rows import AS_1F1B, RANKS, SCHEDULES, published_plan, rows_of, scaled_model

LEAST_MS = 20.0


@pytest.fixture(scope="module")
def model():
    return scaled_model(LEAST_MS)


def test_the_published_model_is_slowed_down_by_one_factor_until_no_action_is_too_short(model):
    from frazil_jobs.training.planning import published

    factors = {
        round(slow.total / fast.total, 9) for slow, fast in zip(model.blocks, published.MODEL.blocks, strict=True)
    }
    assert len(factors) == 1
    rows = rows_of(model, SCHEDULES, max_ratio=0.8)
    times = [seconds for row in rows for time in row.timings.actions.values() for seconds in (time.full, time.frozen)]
    assert min(seconds for seconds in times if seconds > 0) == pytest.approx(LEAST_MS / 1000)


def test_every_schedule_has_every_method_and_predictions_are_in_order(model):
    rows = rows_of(model, ("1F1B", "ZBH1"), max_ratio=0.8)
    by_method = {(row.schedule, row.method): row for row in rows}
    for schedule in ("1F1B", "ZBH1"):
        methods = [row.method for row in rows if row.schedule == schedule]
        assert methods[:6] == ["none", "balanced", "uniform at cap", "uniform at equal mean", "published", "ours"]
        none, published, ours = (by_method[schedule, name] for name in ("none", "published", "ours"))
        assert none.plan.mean_freeze_ratio == 0
        assert ours.plan.mean_freeze_ratio < published.plan.mean_freeze_ratio <= 0.8
        assert ours.predicted < none.predicted
        assert ours.predicted <= 1.011 * published.plan.makespan
        assert by_method[schedule, "uniform at equal mean"].predicted >= ours.predicted
        assert by_method[schedule, "balanced"].predicted <= none.predicted
    # splitting dW is worth more than a fifth without freezing anything
    assert by_method["1F1B", "none"].predicted / by_method["ZBH1", "none"].predicted > 1.2


def test_split_schedules_are_as_fast_as_1f1b_published_with_much_less_freezing(model):
    rows = rows_of(model, ("1F1B", "ZBH1", "ZBV"), max_ratio=0.8)
    published = next(row for row in rows if (row.schedule, row.method) == ("1F1B", "published"))
    found = {row.schedule: row for row in rows if row.method == AS_1F1B}
    assert set(found) == {"ZBH1", "ZBV"}
    for schedule, part in {"ZBH1": 0.70, "ZBV": 0.45}.items():
        assert found[schedule].predicted <= published.predicted * (1 + 1e-9)
        assert found[schedule].plan.mean_freeze_ratio <= part * published.plan.mean_freeze_ratio


def test_the_published_plan_is_named_to_the_parameter():
    named = published_plan(0.8)
    assert (named["objective"], named["max_ratio"], named["slack"], named["selection"]) == (
        "Published", 0.8, 0.0, "Uniform",
    )  # fmt: skip


def test_the_baseline_is_run_even_where_its_schedule_is_not_asked_for(model):
    assert next(row.method for row in rows_of(model, ("GPipe",), max_ratio=0.8) if row.schedule == "1F1B") == "none"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("split", [True, False])
def test_an_emulated_stage_sleeps_its_forward_its_dx_and_the_dw_that_is_not_frozen(model, monkeypatch, first, split):
    import torch

    from frazil_cli.bench_training import emulated
    from frazil_jobs.training.freezing.stage import frozen
    from frazil_jobs.training.planning.actions import Kind

    slept: list[float] = []
    monkeypatch.setattr(emulated.time, "sleep", slept.append)
    blocks = model.blocks[:3]
    stage = emulated.EmulatedStage(blocks, first=first)
    parameters = list(stage.parameters())
    behind_first = sum(block.backward_input for block in blocks[1:])
    whole = sum(block.backward_input for block in blocks)
    # the first block is frozen, and the second one's first tensor
    masked = parameters[:10]
    share = masked[9].numel() / sum(parameter.numel() for parameter in parameters[9:18])
    left = (1 - share) * blocks[1].backward_weight + blocks[2].backward_weight
    chain = behind_first - blocks[1].backward_input if first else 0.0
    dx = 0.0 if first else whole
    assert stage.seconds(Kind.F, masked) == pytest.approx(sum(block.forward for block in blocks))
    assert stage.seconds(Kind.I, masked) == pytest.approx(dx)
    assert stage.seconds(Kind.W, masked) == pytest.approx(left + chain, rel=1e-3)
    assert stage.seconds(Kind.B, masked) == pytest.approx(dx + left + chain, rel=1e-3)
    assert stage.seconds(Kind.B, parameters) == pytest.approx(dx)
    x = torch.ones(2, emulated.WIDTH, requires_grad=not first)
    with frozen(masked):
        out = stage(x)
    assert sum(slept) == pytest.approx(sum(block.forward for block in blocks))
    slept.clear()
    if split and not first:
        torch.autograd.grad(out.sum(), x, retain_graph=True)
        assert sum(slept) == pytest.approx(whole)
        slept.clear()
        torch.autograd.grad(out.sum(), parameters[10:])
        assert sum(slept) == pytest.approx(left, rel=1e-3)
    else:
        out.sum().backward()
        assert sum(slept) == pytest.approx(dx + left + chain, rel=1e-3)
        assert [parameter.grad is None for parameter in parameters] == [True] * 10 + [False] * 17


def test_a_schedule_that_there_is_not_is_refused_with_those_that_there_are():
    from frazil_cli.bench import app

    result = CliRunner().invoke(app, ["training", "--schedule", "Zigzag"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "Interleaved1F1B" in result.output


@pytest.mark.slow
def test_the_bench_runs_and_gives_every_figure():
    arguments = ["bench", "training", "--rounds", "1", "--least-ms", "2"]
    arguments += ["--schedule", "1F1B", "--schedule", "ZBH1", "--json"]
    result = subprocess.run(
        [sys.executable, "-m", "frazil_cli.main", *arguments], capture_output=True, text=True, timeout=280
    )
    assert result.returncode == 0, result.stderr
    table = json.loads(result.stdout)
    assert {row["schedule"] for row in table["rows"]} == {"1F1B", "ZBH1"}
    for row in table["rows"]:
        assert row["seconds"] > 0
        assert row["speedup"] > 0
        assert sum(row["stages"]) == len(scaled_model(2).blocks)
        assert row["mean_freeze_ratio_measured"] == pytest.approx(row["mean_freeze_ratio"], abs=0.15)
        parts = row["residue_of_drawing"], row["residue_of_actions"], row["residue_between_actions"]
        assert row["residue"] == pytest.approx(sum(parts))
        assert abs(row["residue_of_drawing"]) < (1e-9 if row["mean_freeze_ratio"] == 0 else 0.2)
    assert len(table["rows"]) >= 6 * 2
    assert RANKS == 4
