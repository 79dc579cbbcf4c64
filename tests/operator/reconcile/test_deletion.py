"""A job that is being deleted: its pods end first, then its outputs go, then it may go itself."""

import pytest
from operator_world import generation_job, started, training_job

from frazil_operator.reconcile.plan import Removal

FINALIZER = "frazil.dev/outputs"
GANGS = {"workers": {"nodesPerReplica": 2, "gpusPerNode": 1, "replicas": 2}, "parallelism": {"conditioning": 2}}
BODIES = {
    "shards": lambda when: generation_job(output={"whenDeleted": when}),
    "gangs": lambda when: generation_job(output={"whenDeleted": when}, **GANGS),
    "training": lambda when: training_job(output={"whenDeleted": when}),
}
EACH_SHAPE = pytest.mark.parametrize("shape", BODIES)


def leaving(shape, *, when="Delete"):
    """A job that runs, with a pod for each of its Jobs, and has just been deleted by somebody."""
    world = started(BODIES[shape](when))
    for name in world.jobs:
        world.pod(name, phase="Running")
    world.body["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    return world


def asked(plan):
    return [ask.name for ask in plan.asks]


@EACH_SHAPE
def test_with_retain_nothing_is_asked_deleted_or_waited_for(shape):
    world = leaving(shape, when="Retain")
    assert FINALIZER not in world.body["metadata"].get("finalizers", [])
    plan = world.plan()
    assert (plan.delete, plan.asks, plan.finalizers, plan.status) == ((), (), None, None)


@EACH_SHAPE
def test_all_its_jobs_are_deleted_and_outputs_wait_for_their_pods(shape):
    world = leaving(shape)
    plan = world.plan()
    assert sorted(one.name for one in plan.delete) == world.jobs
    assert asked(plan) == []
    assert plan.finalizers is None


@EACH_SHAPE
def test_once_all_has_gone_outputs_are_removed_below_the_jobs_own_prefix(shape):
    world = leaving(shape)
    world.objects.clear()
    (ask,) = world.plan().asks
    assert ask.name == "delete_outputs"
    assert ask.payload["prefix"] == f"team/{world.body['metadata']['name']}-0a1b2c3d"
    assert ask.payload["namespace"] == "team"


@EACH_SHAPE
def test_the_finalizer_goes_when_the_outputs_have_gone_and_not_when_the_store_is_down(shape):
    world = leaving(shape)
    world.objects.clear()
    world.removal = Removal(error="the store does not answer")
    assert asked(world.plan()) == ["delete_outputs"]
    assert world.plan().finalizers is None
    world.removal = Removal()
    world.settle()
    assert world.body["metadata"]["finalizers"] == []


@EACH_SHAPE
def test_why_a_job_can_not_go_is_said_once_with_the_way_out(shape):
    world = leaving(shape)
    world.objects.clear()
    world.events.clear()
    world.removal = Removal(error="the store does not answer")
    world.settle()
    (said,) = [event for event in world.events if event.reason == "RemovalFailed"]
    assert said.type == "Warning"
    assert "the store does not answer" in said.message
    assert FINALIZER in said.message
    assert world.condition("OutputsStored") == ("False", "RemovalFailed")


@EACH_SHAPE
def test_pods_that_have_ended_are_not_waited_for(shape):
    world = leaving(shape)
    for kind, name in list(world.objects):
        if kind == "Pod":
            world.objects[(kind, name)]["status"]["phase"] = "Succeeded"
        elif kind == "Job":
            del world.objects[(kind, name)]
    assert asked(world.plan()) == ["delete_outputs"]


@EACH_SHAPE
def test_outputs_are_not_removed_while_a_job_is_there_that_may_start_a_pod(shape):
    world = leaving(shape)
    for kind, name in list(world.objects):
        if kind == "Pod":
            del world.objects[(kind, name)]
    plan = world.plan()
    assert sorted(one.name for one in plan.delete) == world.jobs
    assert asked(plan) == []
