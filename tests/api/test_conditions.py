"""Conditions and the phase that follows from them."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest

from frazil_jobs.api import conditions as c
from frazil_jobs.api.phase import phase_of
from frazil_jobs.api.status import (
    CheckpointStatus,
    Condition,
    GenerationJobStatus,
    GenerationProgress,
    Phase,
    TrainingJobStatus,
)

T0, T1 = "2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z"


def of(**states: bool) -> list[Condition]:
    """Conditions by type; the reason is the first that the type has."""
    return [
        Condition(type=kind, status="True" if state else "False", last_transition_time=T0, reason=c.REASONS[kind][0])
        for kind, state in states.items()
    ]


FINALIZING = [Condition(type="OutputsStored", status="False", last_transition_time=T0, reason=c.FINALIZING)]
UPLOADING = [Condition(type="OutputsStored", status="False", last_transition_time=T0, reason=c.UPLOADING)]


@pytest.mark.parametrize(
    ("sentence", "conditions", "suspend", "phase"),
    [
        ("nothing is known yet", [], False, "Starting"),
        ("the queue has no room", of(QuotaReserved=False), False, "Queued"),
        ("admitted, pods not ready", of(QuotaReserved=True, PodsReady=False), False, "Starting"),
        ("pods are ready", of(QuotaReserved=True, PodsReady=True), False, "Running"),
        ("outputs arrive while pods work", of(PodsReady=True) + UPLOADING, False, "Running"),
        ("an attempt is replaced", of(PodsReady=True, Restarting=True), False, "Restarting"),
        ("the replacement runs", of(PodsReady=True, Restarting=False), False, "Running"),
        ("all is made, the manifest isn't", of(PodsReady=True) + FINALIZING, False, "Storing"),
        ("the manifest is there, Complete isn't yet", of(PodsReady=True, OutputsStored=True), False, "Storing"),
        ("suspended, its pods gone", of(PodsReady=True, Suspended=True), True, "Suspended"),
        ("suspend was just asked for", of(PodsReady=True), True, "Suspended"),
        ("resumed", of(Suspended=False, PodsReady=True), False, "Running"),
        ("preempted while it ran", of(QuotaReserved=False, PodsReady=False), False, "Queued"),
        ("done", of(PodsReady=True, OutputsStored=True, Complete=True), False, "Complete"),
        ("done, then suspended", of(Complete=True), True, "Complete"),
        ("failed while suspended", of(PodsReady=True, Suspended=True, Failed=True), True, "Failed"),
        ("not failed so far", of(PodsReady=True, Failed=False, Complete=False), False, "Running"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_phase_follows_from_the_conditions_in_any_order(
    sentence: str, conditions: list[Condition], suspend: bool, phase: str
) -> None:
    for order in itertools.permutations(conditions):
        assert phase_of(order, suspend=suspend) == phase, sentence


def test_every_phase_is_reached_and_is_one_that_the_crd_has() -> None:
    kinds = [[], of(Failed=True), of(Complete=True), of(Suspended=True), FINALIZING, of(Restarting=True)]
    kinds += [of(PodsReady=True), of(QuotaReserved=False)]
    assert {phase_of(conditions) for conditions in kinds} == set(get_args(Phase))


def test_every_reason_is_a_word_that_the_crd_takes_and_has_a_name() -> None:
    names = {value for name, value in vars(c).items() if name.isupper() and isinstance(value, str)}
    for kind, reasons in c.REASONS.items():
        assert kind in names
        assert len(set(reasons)) == len(reasons)
        for reason in reasons:
            assert reason in names
            assert Condition(type=kind, status="True", last_transition_time=T0, reason=reason).reason == reason
    assert names == set(c.REASONS) | {reason for reasons in c.REASONS.values() for reason in reasons}


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
    with pytest.raises(ValueError, match="no reason"):
        c.set_condition([], "Done", "True", reason=c.SUCCEEDED, now=T0)


def test_the_generation_is_that_of_the_last_decision_and_other_conditions_are_left_alone() -> None:
    both = of(PodsReady=True, QuotaReserved=True)
    after = c.set_condition(both, c.PODS_READY, "True", reason=c.ALL_READY, generation=7, now=T1)
    assert after[0].observed_generation == 7
    assert after[0].last_transition_time == T0
    assert after[1] is both[1]


def test_a_status_is_written_as_kubernetes_spells_it() -> None:
    conditions = c.set_condition([], c.PODS_READY, "True", reason=c.ALL_READY, generation=2, now=T0)
    generation = GenerationJobStatus(
        observed_generation=2, conditions=conditions, progress=GenerationProgress(images_per_second="3.2")
    ).document()
    assert generation["observedGeneration"] == 2
    assert generation["conditions"] == [
        {
            "type": "PodsReady",
            "status": "True",
            "observedGeneration": 2,
            "lastTransitionTime": T0,
            "reason": "AllReady",
            "message": "",
        }
    ]
    assert generation["progress"]["imagesPerSecond"] == "3.2"
    training = TrainingJobStatus(checkpoint=CheckpointStatus(step=500, resumed_from_step=400)).document()
    assert training["checkpoint"]["resumedFromStep"] == 400
    for document in (generation, training):
        assert all("_" not in key for key in _keys(document))


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for inner in value.values() for key in _keys(inner))]
    return [key for inner in value for key in _keys(inner)] if isinstance(value, list) else []


def test_a_status_that_a_newer_operator_wrote_can_be_read() -> None:
    status = GenerationJobStatus.model_validate({"phase": "Running", "somethingNew": {"a": 1}})
    assert status.phase == "Running"
