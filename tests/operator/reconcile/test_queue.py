"""A queue (Kueue) in charge of the Jobs: what its webhook refuses is never asked for, and its words are the job's.

`Queue` stands for Kueue's validating webhook of batch/v1 Jobs (pkg/controller/jobs/job/job_webhook.go of Kueue).
"""

import copy

import pytest
from operator_world import World, generation_job, merge, pin, started, training_job

from frazil_operator.reconcile.plan import Inspection

LEAST = "kueue.x-k8s.io/job-min-parallelism"
QUEUE = {"queueName": "gpus"}


class Refused(Exception):
    """Kueue's webhook says no."""


class Queue(World):
    """A world in which Kueue judges each Job that is made or changed."""

    def make(self, thing):
        if thing["kind"] == "Job" and (least := thing["metadata"].get("annotations", {}).get(LEAST)) is not None:
            most = thing["spec"]["parallelism"]
            if not 0 < int(least) < most:
                raise Refused(f"{LEAST}: {least}: should be between 0 and {most - 1}")
        super().make(thing)

    def _patch(self, patch):
        before = copy.deepcopy(self.objects[(patch.kind, patch.name)])
        super()._patch(patch)
        after = self.objects[(patch.kind, patch.name)]
        if patch.kind != "Job" or LEAST not in before["metadata"].get("annotations", {}):
            return
        if not before["spec"]["suspend"] and before["spec"]["parallelism"] != after["spec"]["parallelism"]:
            self.objects[(patch.kind, patch.name)] = before
            raise Refused(
                "spec.parallelism: cannot change when partial admission is enabled and the job is not suspended"
            )


def queued(*, shards=3, **workers):
    world = Queue(generation_job(scheduling=QUEUE, workers=workers))
    world.inspection = Inspection(pin=pin(4 * shards))
    return world


def admit(world, *, pods=None):
    """The queue lets the only Job start, with fewer pods than it asks for where it says so."""
    job = world.job()
    merge(job["spec"], {"suspend": False, "parallelism": pods or job["spec"]["parallelism"]})
    job["status"] = {"active": job["spec"]["parallelism"], "ready": job["spec"]["parallelism"]}


@pytest.mark.parametrize(("least", "replicas"), [(1, 2), (2, 3)])
def test_a_job_that_may_start_in_part_is_one_that_the_queue_takes(least, replicas):
    world = queued(replicas=replicas, minReplicas=least)
    world.settle()
    assert world.job()["metadata"]["annotations"][LEAST] == str(least)
    assert world.phase == "Queued"


@pytest.mark.parametrize(("least", "replicas", "shards"), [(1, 1, 3), (3, 3, 3), (2, 4, 2), (3, 4, 2)])
def test_a_job_that_can_only_start_whole_is_one_that_the_queue_takes(least, replicas, shards):
    world = queued(replicas=replicas, minReplicas=least, shards=shards)
    world.settle()
    assert world.phase == "Queued"


def test_fewer_pods_that_the_queue_has_admitted_are_left_alone():
    world = queued(replicas=3, minReplicas=1)
    world.settle()
    admit(world, pods=2)
    world.settle()
    assert world.job()["spec"]["parallelism"] == 2
    assert world.condition("QuotaReserved") == ("True", "Admitted")


def test_scaling_a_job_that_was_admitted_in_part_does_not_stop_its_status():
    world = queued(replicas=3, minReplicas=1)
    world.settle()
    admit(world, pods=2)
    world.settle()
    world.body["spec"]["workers"]["replicas"] = 1
    world.settle()
    world.job()["status"] |= {"completedIndexes": "0", "succeeded": 1}
    world.settle()
    assert world.status["shards"]["completedCount"] == 1


def test_scaling_a_job_that_waits_in_the_queue_changes_what_it_asks_for():
    world = queued(replicas=3, minReplicas=1)
    world.settle()
    world.body["spec"]["workers"]["replicas"] = 2
    world.settle()
    assert world.job()["spec"]["parallelism"] == 2


@pytest.mark.parametrize(
    "body",
    [
        generation_job(scheduling=QUEUE),
        generation_job(
            scheduling=QUEUE,
            workers={"nodesPerReplica": 2, "gpusPerNode": 1, "replicas": 2},
            parallelism={"conditioning": 2},
        ),
        training_job(scheduling=QUEUE),
    ],
    ids=["shards", "gangs", "training"],
)
def test_a_suspended_job_is_held_by_the_workloads_own_switch_and_let_go_by_it(body):
    """Kueue puts a Job's spec.suspend back; spec.active of its Workload is for people and controllers."""
    world = started(body)
    for number, name in enumerate(world.jobs):
        merge(world.job(name)["spec"], {"suspend": False})
        owner = {"kind": "Job", "name": name, "uid": world.job(name)["metadata"]["uid"]}
        meta = {"name": f"w{number}", "namespace": "team", "ownerReferences": [owner]}
        world.make(
            {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "metadata": meta, "spec": {"active": True}}
        )
    workloads = [thing for (kind, _), thing in world.objects.items() if kind == "Workload"]
    assert workloads
    for wanted in (True, False):
        world.body["spec"]["suspend"] = wanted
        world.settle()
        assert [workload["spec"]["active"] for workload in workloads] == [not wanted] * len(workloads)
        assert [world.job(name)["spec"]["suspend"] for name in world.jobs] == [False] * len(workloads)


def test_the_next_attempt_of_a_training_waits_in_the_queue_like_the_first():
    world = started(training_job(scheduling=QUEUE))
    admit(world)
    world.settle()
    assert world.phase == "Running"
    world.failed_pod("dit-a0", 1)
    world.end_job("dit-a0", "Failed", reason="BackoffLimitExceeded", failed=2)
    world.settle()
    job = world.job("dit-a1")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert world.condition("QuotaReserved") == ("False", "WaitingForQuota")
    admit(world)
    world.settle()
    assert world.condition("Restarting") == ("False", "Restarted")
    assert world.phase == "Running"
