"""What the leader tells at the end: the schedule is drawn from the newest plan's own times."""

from __future__ import annotations

from types import SimpleNamespace

from frazil_jobs.training.freezing.plans import Planned, Reason
from frazil_jobs.training.planning import published
from frazil_jobs.training.planning.program import FreezingSettings, solve
from frazil_jobs.training.planning.schedules import order_of
from frazil_jobs.training.planning.timings import Timings
from frazil_jobs.training.telling import drawn_schedule


def trainer(plans: list):
    order = order_of("1F1B", ranks=published.RANKS, microbatches=published.MICROBATCHES)
    return SimpleNamespace(freezing=SimpleNamespace(plans=plans), engine=SimpleNamespace(order=order))


def test_the_schedule_is_drawn_before_and_after_the_newest_plan():
    order = order_of("1F1B", ranks=published.RANKS, microbatches=published.MICROBATCHES)
    timings = Timings.of_stages(published.STAGES, order.order, provenance="recorded")
    plan = solve(order, timings, FreezingSettings(max_ratio=0.3))
    entry = Planned(step=120, reason=Reason.MONITORED, plan=plan, timings=timings, measured=None)
    drawing = drawn_schedule(trainer([entry.to_json()]))
    assert drawing.startswith("<svg")
    assert "nothing frozen" in drawing
    shorter = 100 * (1 - plan.makespan / plan.makespan_unfrozen)
    assert f"planned at step 120, {shorter:.0f} % shorter" in drawing


def test_without_a_plan_nothing_is_drawn():
    assert drawn_schedule(trainer([])) == ""
    assert drawn_schedule(SimpleNamespace(freezing=None, engine=None)) == ""
