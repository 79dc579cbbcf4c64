"""What could not be made: the status says why, nothing is claimed to be there, and deadlines go on."""

from __future__ import annotations

import pytest
from operator_world import World, generation_job, pin, started, training_job

from frazil_operator.reconcile.plan import Inspection

WORDS = "Job 'ice-a0' is refused: exceeded quota"
GANGS = {"workers": {"nodesPerReplica": 2, "gpusPerNode": 1}, "parallelism": {"conditioning": 2}}


@pytest.mark.parametrize(
    "body", [generation_job(), generation_job(**GANGS), training_job()], ids=["shards", "gangs", "training"]
)
def test_a_child_that_is_refused_is_a_condition_and_made_when_it_may_be(body):
    world = World(body, refused=WORDS)
    world.inspection = Inspection(pin=pin())
    world.settle()
    assert world.condition("PodsReady") == ("False", "Refused")
    assert world.objects == {}
    assert "jobs" not in world.status
    assert [(event.type, event.reason) for event in world.events if event.reason == "Refused"] == [
        ("Warning", "Refused")
    ]
    world.refused = ""
    world.settle()
    assert world.jobs
    assert world.condition("PodsReady") == ("False", "WaitingForPods")


def test_deadlines_go_on_while_the_next_attempt_is_refused():
    world = World(training_job(activeDeadlineSeconds=600))
    world.settle()
    world.refused = WORDS
    world.settle()
    assert world.phase != "Failed"
    world.later(601)
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")
    assert world.job()["spec"]["suspend"] is True


def test_the_same_refusal_is_written_once():
    world = started()
    world.refused = WORDS
    world.settle()
    before = world.status_writes
    world.later(60)
    world.settle()
    assert world.status_writes == before
