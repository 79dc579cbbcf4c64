"""What is drawn: every action once, at its time, with its frozen share."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from planning_cases import SCHEDULES, random_timings

from frazil_jobs.training.planning.drawing import Panel, chrome_trace, gantt
from frazil_jobs.training.planning.program import FreezingSettings, solve
from frazil_jobs.training.planning.schedules import order_of
from frazil_jobs.training.planning.simulator import simulate

SVG = "{http://www.w3.org/2000/svg}"


def panels(schedule) -> list[Panel]:
    order = order_of(schedule, ranks=3, microbatches=6)
    timings = random_timings(order, 1).scaled(0.01)
    plan = solve(order, timings, FreezingSettings(max_ratio=0.5))
    return [
        Panel("before", order, simulate(order, timings)),
        Panel("after <b>", order, simulate(order, timings, plan.ratios), plan.ratios),
    ]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_action_is_a_bar_at_its_time_and_frozen_shares_are_hatched(schedule) -> None:
    drawn = panels(schedule)
    root = ElementTree.fromstring(gantt(drawn))
    bars = root.findall(f"{SVG}g")
    actions = list(drawn[0].order.actions)
    assert len(bars) == 2 * len(actions)
    said = [bar.findtext(f"{SVG}title") or "" for bar in bars]
    assert [text.split(":")[0] for text in said] == [str(action) for action in actions] * 2
    hatched = [bar for bar in bars if bar.find(f"{SVG}rect[@fill='url(#frozen)']") is not None]
    assert len(hatched) == sum(ratio > 0 for ratio in drawn[1].ratios.values())
    scale = None
    for panel, of_panel in zip(drawn, (bars[: len(actions)], bars[len(actions) :]), strict=True):
        for action, bar in zip(panel.order.actions, of_panel, strict=True):
            rect, span = bar.find(f"{SVG}rect"), panel.timeline.spans[action]
            assert rect is not None
            width, seconds = float(rect.get("width", 0)), span.end - span.start
            scale = scale or width / seconds
            assert width == pytest.approx(seconds * scale, abs=0.02)


def test_text_that_looks_like_markup_is_text() -> None:
    assert "after &lt;b&gt;" in gantt(panels("1F1B"))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_trace_has_every_action_once_on_its_rank_in_microseconds(schedule) -> None:
    drawn = panels(schedule)
    events = json.loads(chrome_trace(drawn))["traceEvents"]
    runs = [event for event in events if event["ph"] == "X"]
    for process, panel in enumerate(drawn):
        for rank, actions in enumerate(panel.order.order):
            mine = [event for event in runs if (event["pid"], event["tid"]) == (process, rank)]
            assert [event["name"] for event in mine] == [str(action) for action in actions]
            for event, action in zip(mine, actions, strict=True):
                span = panel.timeline.spans[action]
                assert event["ts"] == pytest.approx(span.start * 1e6)
                assert event["dur"] == pytest.approx((span.end - span.start) * 1e6)
                assert event["args"]["freezeRatio"] == panel.ratios.get(action, 0.0)
    assert {event["args"]["name"] for event in events if event["name"] == "thread_name"} == {
        "rank 0",
        "rank 1",
        "rank 2",
    }
