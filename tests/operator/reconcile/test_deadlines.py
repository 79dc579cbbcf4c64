"""Deadlines in both shapes: what counts towards them, and what does not."""

from datetime import timedelta

import pytest
from operator_world import World, generation_job, merge, started, training_job

from frazil_operator.reconcile.times import time_of

QUEUE = {"queueName": "gpus"}
OF_TWO_PODS = {"nodesPerReplica": 2, "gpusPerNode": 1}


def gangs_job(*, replicas=1, **spec):
    return generation_job(workers={**OF_TWO_PODS, "replicas": replicas}, parallelism={"conditioning": 2}, **spec)


EACH_SHAPE = pytest.mark.parametrize(
    "make", [generation_job, gangs_job, training_job], ids=["shards", "gangs", "training"]
)
EACH_GANG = pytest.mark.parametrize("make", [gangs_job, training_job], ids=["gangs", "training"])


def ready(world):
    """All pods of all children are ready."""
    for name in world.jobs:
        world.job(name)["status"] = {"active": 2, "ready": 2}
    world.settle()


def admit(world, *, admitted=True):
    """The queue lets all children start, or takes the quota back."""
    for name in world.jobs:
        merge(world.job(name)["spec"], {"suspend": not admitted})
    world.settle()


def after(world, seconds):
    """Look at the job so many seconds after its start."""
    world.now = time_of(world.status["startTime"]) + timedelta(seconds=seconds)
    return world.step()


def loses_a_rank(world):
    (name,) = world.jobs
    world.failed_pod(name, 1)
    world.end_job(name, "Failed", reason="BackoffLimitExceeded", failed=2)
    world.settle()


@EACH_SHAPE
def test_a_job_whose_pods_never_start_fails_at_its_deadline_and_not_before(make):
    world = started(make(preRunningDeadlineSeconds=60))
    assert after(world, 59).requeue_after == 1
    assert world.condition("Failed") is None
    after(world, 60)
    assert world.condition("Failed") == ("True", "PreRunningDeadlineExceeded")


@EACH_SHAPE
def test_once_all_pods_were_ready_the_pre_running_deadline_is_over(make):
    world = started(make(preRunningDeadlineSeconds=60))
    ready(world)
    world.later(1000)
    assert world.settle().requeue_after is None
    assert world.condition("Failed") is None


@EACH_GANG
def test_an_attempt_that_replaces_one_that_ran_long_has_time_to_start(make):
    world = started(make(preRunningDeadlineSeconds=60))
    ready(world)
    world.later(1000)
    world.settle()
    loses_a_rank(world)
    assert world.condition("Failed") is None
    assert world.phase == "Restarting"


@EACH_SHAPE
def test_waiting_again_after_a_preemption_counts_for_no_pre_running_deadline(make):
    """The API's own words: waiting in a queue isn't counted."""
    world = started(make(preRunningDeadlineSeconds=60, scheduling=QUEUE))
    admit(world)
    world.later(5)
    admit(world, admitted=False)
    world.later(1000)
    world.settle()
    assert world.condition("Failed") is None


def test_one_ready_replica_is_enough_for_the_pre_running_deadline_of_shards():
    world = started(generation_job(workers={"replicas": 3}, preRunningDeadlineSeconds=60))
    world.job()["status"] = {"active": 3, "ready": 1}
    world.later(61)
    world.settle()
    assert world.condition("Failed") is None


def test_one_ready_replica_is_enough_for_the_pre_running_deadline_of_gangs():
    world = started(gangs_job(replicas=2, preRunningDeadlineSeconds=60))
    world.job("ice-a0-0")["status"] = {"active": 2, "ready": 2}
    world.later(61)
    world.settle()
    assert world.condition("Failed") is None


@EACH_SHAPE
def test_the_active_deadline_is_counted_anew_after_each_resume(make):
    world = started(make(activeDeadlineSeconds=100))
    ready(world)
    world.later(90)
    world.settle()
    world.body["spec"]["suspend"] = True
    world.settle()
    world.later(1000)
    world.body["spec"]["suspend"] = False
    world.settle()
    after(world, 99)
    assert world.condition("Failed") is None
    after(world, 100)
    assert world.condition("Failed") == ("True", "DeadlineExceeded")


@EACH_GANG
def test_the_active_deadline_goes_on_over_restarts(make):
    world = started(make(activeDeadlineSeconds=100))
    ready(world)
    after(world, 60)
    loses_a_rank(world)
    ready(world)
    after(world, 99)
    assert world.condition("Failed") is None
    after(world, 100)
    assert world.condition("Failed") == ("True", "DeadlineExceeded")


def test_a_gang_whose_provider_is_missing_waits_no_longer_than_its_deadline():
    world = World(training_job(scheduling={"gang": "Required"}, preRunningDeadlineSeconds=60))
    world.settle()
    world.later(60)
    world.settle()
    assert world.condition("Failed") == ("True", "PreRunningDeadlineExceeded")
    assert world.jobs == []
