"""The report page: what people typed is escaped, no script, curves where the numbers are."""

from __future__ import annotations

import math
import re

import pytest
import tiny_models
from hypothesis import given
from hypothesis import strategies as st

from frazil_jobs.outputs.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Curve, chart, smoothed, ticks
from frazil_jobs.outputs.training_report import render
from frazil_jobs.training.history import MOST_POINTS, History, Measure, Point
from frazil_jobs.training.planning.drawing import Panel, gantt
from frazil_jobs.training.planning.program import uniform
from frazil_jobs.training.planning.schedules import order_of
from frazil_jobs.training.planning.simulator import simulate
from frazil_jobs.training.planning.timings import StageTime, Timings


def point(step: int, **values) -> Point:
    return Point(
        **{
            "step": step,
            "loss": 5.0 / step,
            "learning_rate": 0.1,
            "gradient_norm": 1.0,
            "seconds": 0.1,
            "throughput": 80.0,
        }
        | values
    )


def page(history: History, **spec) -> str:
    return render(tiny_models.job(**spec), history.document(), steps=len(history.points))


def test_a_page_tells_loss_evaluations_and_stages():
    history = History()
    for step in range(1, 21):
        history.add(
            point(step, freeze_ratio=0.2, freeze_ratios=(0.1, 0.3), predicted_seconds=1.0, measured_seconds=1.1)
        )
    history.measures.append(Measure(step=20, loss=0.31, accuracy=0.875))
    history.plans.append({"step": 12, "reason": "monitored"})
    text = page(history)
    for said in ("Loss", "Throughput", "stage 0", "stage 1", "predicted", "87.5 %", "monitored", "0.31"):
        assert said in text
    assert text.count("<svg") == 7
    assert "<script" not in text


def test_the_schedule_is_drawn_before_and_after_the_plan():
    order = order_of("1F1B", ranks=2, microbatches=4)
    stages = [StageTime(forward=1.0, backward=2.0, backward_frozen=float(stage)) for stage in range(2)]
    timings = Timings.of_stages(stages, order.order, provenance="recorded")
    before, after = (simulate(order, timings, ratios) for ratios in ({}, uniform(order, 0.5)))
    drawn = gantt([Panel("nothing frozen", order, before), Panel("planned <at> step 7", order, after)])
    text = render(tiny_models.job(), History(points=[point(1)]).document(), steps=1, schedule=drawn)
    assert drawn in text
    assert "nothing frozen" in text
    assert "planned &lt;at&gt; step 7" in text
    assert text.count("0F1") > 0
    assert drawn not in page(History(points=[point(1)]))


def test_freeze_ratios_are_told_by_tensor_group_and_stage():
    history = History()
    history.note_groups({0: {"self_attn": 0.2, "mlp": 0.5}, 1: {"mlp": 0.0}})
    history.note_groups({0: {"self_attn": 0.4, "mlp": 0.5}, 1: {"mlp": 0.5}})
    rows = re.findall(r"<tr><td>(\w+)</td><td>([\d.]*)</td><td>([\d.]*)</td></tr>", page(history))
    assert rows == [("self_attn", "0.30", ""), ("mlp", "0.50", "0.25")]
    assert History.of(history.document()) == history


def test_what_people_typed_is_data():
    text = page(History(), model={"uri": "<script>alert(1)</script>"})
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "No step was made." in text


def test_a_page_asks_nothing_of_any_server():
    text = page(History(points=[point(1)]))
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=", text)


def test_losses_that_are_no_numbers_are_left_out_of_the_curve():
    found = chart("Loss", [Curve("training", [(1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf)])])
    assert "nan" not in found.curves[0].path
    assert found.curves[0].path.count(",") == 2


@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e9, 1e9)), min_size=1, max_size=30),
    st.booleans(),
)
def test_every_point_lies_inside_of_its_chart(points, smooth):
    found = chart("x", [Curve("a", sorted(points), smooth=smooth)])
    for x, y in re.findall(r"([-\d.]+),([-\d.]+)", found.curves[0].path + found.curves[0].faint):
        assert LEFT - 0.1 <= float(x) <= WIDTH - RIGHT + 0.1
        assert TOP - 0.1 <= float(y) <= HEIGHT - BOTTOM + 0.1


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3.2, 3.21), (-5, 17), (2, 2), (0, 0), (1e-6, 3e-6), (0, 12345)])
def test_ticks_are_round_and_reach_around_the_values(low, high):
    found = ticks(low, high)
    assert found[0] <= low + 1e-12
    assert found[-1] >= high - 1e-12
    assert 2 <= len(found) <= 12


def test_a_smoothed_curve_follows_and_does_not_jump():
    assert smoothed([(0, 1.0), (1, 1.0), (2, 1.0)]) == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert smoothed([(0, 0.0), (1, 1.0), (2, 5.0)])[2][1] == pytest.approx(2.0)
    assert smoothed([(x, 0.0) for x in range(99)] + [(99, 1.0)])[-1][1] == pytest.approx(0.1)


def test_a_long_history_is_thinned_and_survives_a_round_trip():
    history = History()
    for step in range(1, 3 * MOST_POINTS):
        history.add(point(step))
    assert MOST_POINTS / 2 <= len(history.points) <= MOST_POINTS
    assert {later.step - before.step for before, later in zip(history.points, history.points[1:-1], strict=False)} == {
        history.every
    }
    assert History.of(history.document()) == history
