"""Conditions and the phase that follows from them."""

from __future__ import annotations

import itertools

import pytest

from frazil_jobs.api import conditions as c
from frazil_jobs.api.phase import phase_of
from frazil_jobs.api.status import Condition, GenerationJobStatus

T0, T1 = "2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z"


def of(**states: bool) -> list[Condition]:
    """Conditions by type; the reason is the first that the type has."""
    return [
        Condition(type=kind, status="True" if state else "False", last_transition_time=T0, reason=c.REASONS[kind][0])
        for kind, state in states.items()
    ]


@pytest.mark.parametrize(
    ("conditions", "work_done", "phase"),
    [
        ([], False, "Starting"),
        (of(QuotaReserved=False), False, "Queued"),
        (of(QuotaReserved=True), False, "Starting"),
        (of(QuotaReserved=True, PodsReady=True), False, "Running"),
        (of(PodsReady=True, Restarting=True), False, "Restarting"),
        (of(PodsReady=True), True, "Storing"),
        (of(PodsReady=True, Suspended=True), False, "Suspended"),
        (of(Suspended=False, PodsReady=True), False, "Running"),
        (of(PodsReady=True, Complete=True), True, "Complete"),
        (of(PodsReady=True, Suspended=True, Failed=True), False, "Failed"),
    ],
)
def test_the_phase_follows_from_the_conditions(conditions: list[Condition], work_done: bool, phase: str) -> None:
    assert phase_of(conditions, work_done=work_done) == phase
    for order in itertools.permutations(conditions):
        assert phase_of(order, work_done=work_done) == phase


def test_the_transition_time_moves_only_when_the_status_does() -> None:
    first = c.set_condition([], c.PODS_READY, "False", reason="WaitingForPods", now=T0)
    again = c.set_condition(first, c.PODS_READY, "False", reason="ImagePull", message="no such image", now=T1)
    assert (again[0].last_transition_time, again[0].reason) == (T0, "ImagePull")
    ready = c.set_condition(again, c.PODS_READY, "True", reason="AllReady", now=T1)
    assert ready[0].last_transition_time == T1
    assert len(ready) == 1


@pytest.mark.parametrize("terminal", c.TERMINAL)
@pytest.mark.parametrize("other", c.TERMINAL)
def test_what_is_final_stays(terminal: str, other: str) -> None:
    done = c.set_condition([], terminal, "True", reason=c.REASONS[terminal][0], now=T0)
    assert c.set_condition(done, other, "True", reason=c.REASONS[other][0], now=T1) == done
    assert c.set_condition(done, terminal, "False", reason=c.REASONS[terminal][0], now=T1) == done


def test_an_unknown_reason_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="no reason"):
        c.set_condition([], c.FAILED, "True", reason="Whatever", now=T0)


def test_a_status_that_a_newer_operator_wrote_can_be_read() -> None:
    status = GenerationJobStatus.model_validate({"phase": "Running", "somethingNew": {"a": 1}})
    assert status.phase == "Running"
