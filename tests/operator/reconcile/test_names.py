"""Names of gangs: none is used twice, whoever deletes what, since pods of the first may still run and would meet those of
the second. And what is named after a gang ends with it.
"""

import pytest
from operator_world import World, generation_job, pin, started, training_job

from frazil_operator.reconcile.plan import GangSupport, Inspection

PROVIDERS = ["native-v1beta1", "volcano", "coscheduling"]


def gangs_job(*, replicas=1, shards=3, **spec):
    workers = {"nodesPerReplica": 2, "gpusPerNode": 1, "replicas": replicas}
    prompts = {"inline": [f"prompt {index}" for index in range(shards)], "perShard": 1}
    return generation_job(workers=workers, parallelism={"conditioning": 2}, prompts=prompts, **spec)


def begun(body, *, shards=3, **world):
    found = World(body, **world)
    found.inspection = Inspection(pin=pin(shards, 1))
    return found


def fails(world, name, code=1):
    world.failed_pod(name, code)
    world.end_job(name, "Failed", reason="BackoffLimitExceeded", failed=2)


def used_twice(world):
    return sorted({name for name in world.made if world.made.count(name) > 1})


def groups(world):
    return [name for kind, name in world.objects if kind == "PodGroup"]


@pytest.mark.parametrize("deleted", [0, 7, 15])
def test_a_gang_among_the_first_that_somebody_deleted_gets_a_new_name(deleted):
    world = begun(gangs_job(replicas=20, shards=20), shards=20)
    world.settle()
    assert len(world.jobs) == 20
    world.remove("Job", f"ice-a0-{deleted}")
    world.settle()
    assert (len(world.jobs), used_twice(world)) == (20, [])


@pytest.mark.parametrize("deleted", [16, 19])
def test_a_gang_beyond_the_first_that_somebody_deleted_gets_a_new_name(deleted):
    world = begun(gangs_job(replicas=20, shards=20), shards=20)
    world.settle()
    world.remove("Job", f"ice-a0-{deleted}")
    world.settle()
    assert (len(world.jobs), used_twice(world)) == (20, [])


def test_a_failed_gang_that_waits_to_be_replaced_and_that_somebody_deleted_gets_a_new_name():
    world = begun(gangs_job(scheduling={"gang": "Required"}), gang=GangSupport("volcano"))
    world.settle()
    fails(world, "ice-a0-0")
    world.gang = GangSupport()
    world.settle()
    world.remove("Job", "ice-a0-0")
    world.settle()
    world.gang = GangSupport("volcano")
    world.settle()
    assert used_twice(world) == []


def test_a_gang_whose_making_was_never_told_and_that_somebody_deleted_gets_a_new_name():
    """The operator died before the first status; by the time that it was back the job was suspended."""
    world = begun(gangs_job(replicas=3))
    world.step(dies_after=world.crash_points() - 1)
    world.body["spec"]["suspend"] = True
    world.settle()
    world.remove("Job", "ice-a0-2")
    world.body["spec"]["suspend"] = False
    world.settle()
    assert used_twice(world) == []


@pytest.mark.parametrize(
    ("body", "deleted"), [(gangs_job(replicas=3), "ice-a0-2"), (training_job(), "dit-a0")], ids=["gangs", "training"]
)
def test_a_gang_that_somebody_deleted_while_the_job_was_suspended_gets_a_new_name(body, deleted):
    world = begun(body)
    world.settle()
    world.body["spec"]["suspend"] = True
    world.settle()
    world.remove("Job", deleted)
    world.settle()
    world.body["spec"]["suspend"] = False
    world.settle()
    assert used_twice(world) == []


def test_after_the_first_restart_every_gang_has_an_attempt_of_its_own():
    world = begun(gangs_job(replicas=2, shards=6), shards=6)
    world.settle()
    fails(world, "ice-a0-0")
    world.settle()
    for _ in range(6):
        for name in world.jobs:
            world.end_job(name, "Complete", succeeded=2)
        world.settle()
    attempts = [name.split("-")[1] for name in world.made if not name.startswith("ice-a0")]
    assert len(attempts) == len(set(attempts)) == 5
    assert used_twice(world) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_group_of_a_training_goes_when_the_next_attempt_has_its_own(provider):
    world = started(training_job(), gang=GangSupport(provider))
    assert groups(world) == ["dit-a0"]
    fails(world, "dit-a0")
    world.settle()
    assert groups(world) == ["dit-a1"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param(gangs_job(shards=1), None, id="gangs-done"),
        pytest.param(gangs_job(shards=1), 78, id="gangs-failed"),
        pytest.param(training_job(), None, id="training-done"),
        pytest.param(training_job(), 78, id="training-failed"),
    ],
)
def test_the_group_goes_when_the_job_is_over(body, code):
    """A group asks its scheduler for GPUs (Volcano: minResources of an open group) until it's deleted."""
    world = begun(body, shards=1, gang=GangSupport("volcano"))
    world.settle()
    (name,) = world.jobs
    if code is None:
        world.end_job(name, "Complete", succeeded=2)
    else:
        fails(world, name, code)
    world.settle()
    assert world.phase in ("Complete", "Failed", "Storing")
    assert groups(world) == []
