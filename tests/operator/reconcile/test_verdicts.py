"""What the end of a gang counts for: whose exit codes, seen when, charged how often. Both jobs whose replicas are gangs."""

import pytest
from operator_world import generation_job, started, training_job

from frazil_jobs.outputs.progress import TrainingProgress

EVICTED = {"type": "DisruptionTarget", "status": "True", "message": "evicted by the kubelet"}
PATIENT = {"maxRestarts": 100}


def of_gangs(**policy):
    workers = {"nodesPerReplica": 2, "gpusPerNode": 1}
    return generation_job(workers=workers, parallelism={"conditioning": 2}, failurePolicy=policy)


def of_training(**policy):
    return training_job(failurePolicy=policy)


EACH_KIND = pytest.mark.parametrize("make", [of_gangs, of_training], ids=["gangs", "training"])


def running(body):
    world = started(body)
    (name,) = world.jobs
    world.job(name)["status"] = {"active": 2, "ready": 2}
    world.settle()
    return world, name


def ends(world, name, *codes, container="compute", conditions=(), reason="BackoffLimitExceeded"):
    """A gang's Job fails, with a pod for each exit code."""
    for code in codes:
        pod = world.failed_pod(name, code, f"ended with {code}", container=container)
        pod["status"]["conditions"] = list(conditions)
    world.end_job(name, "Failed", reason=reason, failed=len(codes))


@EACH_KIND
@pytest.mark.parametrize("codes", [(78, 75), (75, 78), (1, 78, 143)])
def test_bad_configuration_of_one_rank_outweighs_how_the_others_ended(make, codes):
    world, name = running(make())
    ends(world, name, *codes)
    world.settle()
    assert world.condition("Failed") == ("True", "BadConfiguration")
    assert "exit code 78" in str(world.status["conditions"])
    assert world.made == [name]


@EACH_KIND
def test_bad_configuration_that_fetch_finds_ends_the_job_too(make):
    world, name = running(make())
    ends(world, name, 78, container="fetch")
    world.settle()
    assert world.condition("Failed") == ("True", "BadConfiguration")


@EACH_KIND
def test_a_rank_that_was_told_to_end_and_asks_to_be_tried_again_is_one_restart(make):
    world, name = running(make(**PATIENT))
    ends(world, name, 75, 75)
    world.settle()
    assert world.status["restarts"] == 1


@EACH_KIND
def test_one_failure_of_all_ranks_is_one_restart(make):
    world, name = running(make(**PATIENT))
    ends(world, name, *[1] * 8)
    world.settle()
    assert (world.status["restarts"], len(world.made)) == (1, 2)


@EACH_KIND
def test_a_rank_that_falls_with_an_evicted_one_is_not_charged(make):
    """It lost its peer: its own exit code says nothing."""
    world, name = running(make(**PATIENT))
    ends(world, name, 137, conditions=[EVICTED], reason="PodFailurePolicy")
    world.failed_pod(name, 1, "the peer is gone")
    world.settle()
    assert (world.status["restarts"], len(world.made)) == (0, 2)


@EACH_KIND
def test_a_rule_is_about_the_gpu_container_alone(make):
    world, name = running(make(rules=[{"action": "FailJob", "onExitCodes": [9]}], **PATIENT))
    ends(world, name, 9, container="fetch")
    world.settle()
    assert world.condition("Failed") is None
    assert world.status["restarts"] == 1


@EACH_KIND
@pytest.mark.parametrize("ended", ["Failed", "FailureTarget"])
def test_a_failed_gang_is_judged_once_the_pod_that_failed_is_seen(make, ended):
    world, name = running(make(**PATIENT))
    pods = [world.pod(name, index, phase="Running") for index in range(2)]
    world.end_job(name, ended, reason="BackoffLimitExceeded", failed=1, active=1)
    world.settle()
    end = {"name": "compute", "state": {"terminated": {"exitCode": 78, "message": "no such scheduler"}}}
    pods[1]["status"] = {"phase": "Failed", "containerStatuses": [end]}
    world.settle()
    assert world.condition("Failed") == ("True", "BadConfiguration")
    assert world.made == [name]


@EACH_KIND
@pytest.mark.parametrize("ended", ["Failed", "FailureTarget"])
def test_a_failed_gang_whose_pods_have_all_gone_is_judged_without_them(make, ended):
    world, name = running(make(**PATIENT))
    world.end_job(name, ended, reason="BackoffLimitExceeded", failed=2)
    world.settle()
    assert (world.status["restarts"], len(world.made)) == (1, 2)


@EACH_KIND
def test_a_failure_is_charged_once_even_when_somebody_deletes_the_gang_made_in_its_place(make):
    world, name = running(make(**PATIENT))
    ends(world, name, 1)
    world.step()
    (new,) = set(world.jobs) - {name}
    world.remove("Job", new)
    world.settle()
    assert len(set(world.made)) == 3
    assert world.status["restarts"] == 1


def test_the_attempts_that_stored_nothing_are_counted_right_in_words():
    world, name = running(of_training(maxRestarts=10, maxRestartsWithoutProgress=1))
    world.progress = (TrainingProgress(step=10, checkpoint={"step": 10, "attempt": 0, "uri": "s3://frazil/c/10"}),)
    world.settle()
    for _ in range(2):
        (name,) = world.jobs
        ends(world, name, 1)
        world.settle()
    assert world.condition("Failed") == ("True", "NoProgress")
    assert "2 attempts in a row stored no checkpoint" not in str(world.status["conditions"])
