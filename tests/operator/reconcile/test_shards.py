"""Shape one, a replica fits a pod: every crash point between the first look and the manifest."""

import pytest
from operator_world import World, generation_job, pin, started

from frazil_operator.reconcile.plan import Finalization, Inspection

DONE = Finalization(total=10, stored=10, bytes=1000, manifest="manifest.json")


def running(**spec):
    world = started(generation_job(**spec))
    world.job()["status"] = {"active": 1, "ready": 1}
    world.settle()
    return world


def inspected():
    world = World(generation_job(output={"whenDeleted": "Delete"}))
    world.inspection = Inspection(pin=pin())
    return world


def scaled():
    world = running()
    world.body["spec"]["workers"]["replicas"] = 3
    return world


def suspended():
    world = running()
    world.body["spec"]["suspend"] = True
    return world


def resumed():
    world = suspended()
    world.settle()
    world.body["spec"]["suspend"] = False
    return world


def failed():
    world = running()
    world.failed_pod("ice-a0", 78)
    world.end_job(None, "Failed", reason="PodFailurePolicy")
    return world


def stored():
    world = running()
    world.end_job(None, "Complete", completedIndexes="0-2")
    world.finalization = DONE
    return world


def too_late():
    world = running(activeDeadlineSeconds=60)
    world.later(60)
    return world


@pytest.mark.parametrize("make", [inspected, scaled, suspended, resumed, failed, stored, too_late])
def test_the_operator_dies_before_any_write_and_nothing_is_different_in_the_end(make):
    plain = make()
    before = plain.writes
    plain.settle()
    total = plain.writes - before
    assert total, "nothing is written, so there is no point to die at"
    for point in range(total):
        world, left = make(), point
        while left:
            points = world.crash_points()
            world.step(dies_after=left)
            left -= min(left, points)
        world.settle()
        assert {"attempt": 0, **world.status} == {"attempt": 0, **plain.status}, f"dead after {point} of {total} writes"
        assert world.job()["spec"] == plain.job()["spec"]
        assert world.body["metadata"] == plain.body["metadata"]
        assert len(world.made) == len(plain.made)


def test_a_child_that_somebody_deleted_is_made_again_after_the_spec_has_changed():
    world = running()
    world.body["spec"]["workers"]["replicas"] = 2
    world.settle()
    world.remove("Job", "ice-a0")
    world.settle()
    assert world.jobs == ["ice-a0"]
    assert world.job()["spec"]["parallelism"] == 2


def test_a_slow_inspection_finds_a_status_without_prompts_and_begins_the_job():
    """The API server has filled in the defaults of the status that was written meanwhile."""
    world = World(generation_job(prompts={"uri": "s3://b/p.jsonl", "perShard": 4}))
    world.settle()
    world.later(60)
    world.settle()
    world.body["status"]["prompts"] = {"count": 0, "sha256": ""}
    world.inspection = Inspection(pin=pin(count=10))
    world.settle()
    assert world.jobs == ["ice-a0"]
    assert world.condition("Failed") is None


def test_a_child_that_somebody_deleted_is_not_made_again_for_other_prompts():
    """The operator restarted: the answer in its memory is gone, and the file is inspected anew."""
    world = running(prompts={"uri": "s3://b/p.jsonl", "perShard": 4})
    world.remove("Job", "ice-a0")
    world.inspection = Inspection(pin=pin(count=20) | {"sha256": "cd" * 32})
    world.settle()
    assert world.status["prompts"] == {"count": 10, "sha256": "ab" * 32}
    assert world.condition("Failed") == ("True", "PromptsChanged")
