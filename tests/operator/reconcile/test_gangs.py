"""A GenerationJob whose replicas are gangs: one Job a shard, replaced when a rank is lost; every crash point of it."""

import copy

import pytest
from operator_world import World, generation_job, pin, started

from frazil_jobs.api.generationjob import GenerationJobStatus
from frazil_operator.reconcile.plan import Finalization, GangSupport, Inspection

DONE = Finalization(total=10, stored=10, bytes=1000, manifest="manifest.json")
NO_PROVIDER = GangSupport()
EVICTED = {"type": "DisruptionTarget", "status": "True", "message": "evicted by the kubelet"}


def gang_job(*, replicas=1, **spec):
    workers = {"nodesPerReplica": 2, "gpusPerNode": 1, "replicas": replicas}
    return generation_job(workers=workers, parallelism={"conditioning": 2}, **spec)


def running(*, replicas=1, gang=NO_PROVIDER, **spec):
    """A world whose first gangs run."""
    world = started(gang_job(replicas=replicas, **spec), gang=gang)
    runs(world, *world.jobs)
    world.settle()
    return world


def runs(world, *names):
    """Pods of these gangs are ready."""
    for name in names:
        world.job(name)["status"] = {"active": 2, "ready": 2}


def breaks(world, name, code=1, *, conditions=(), reason="BackoffLimitExceeded"):
    """A rank of a gang is lost."""
    pod = world.failed_pod(name, code, f"rank 0 ended with {code}")
    pod["status"]["conditions"] = list(conditions)
    world.end_job(name, "Failed", reason=reason, failed=2)


def attempts(world):
    return [int(name.split("-a")[1].split("-")[0]) for name in world.made]


def survives_a_crash_anywhere(make):
    """The operator dies before each write on the way to rest, and comes back: nothing is different in the end."""
    plain = make()
    before = plain.writes
    plain.settle()
    total = plain.writes - before
    assert total, "nothing is written, so there is no point to die at"
    for point in range(total):
        world = make()
        dies_after(world, point)
        world.settle()
        assert facts(world) == facts(plain), f"dead after {point} of {total} writes"
        assert len(world.made) == len(set(world.made)), "an attempt was used twice"


def dies_after(world, writes):
    """So many writes are carried out, over as many passes as they take."""
    while writes:
        points = world.crash_points()
        plan = world.step(dies_after=writes)
        writes -= min(points, writes)
        if not points:
            world.later(plan.requeue_after)  # a count is written a little later


def facts(world):
    """What must not depend on when the operator died."""
    names = ("attempt", "restarts", "shards", "phase")
    children = {
        name: (job["metadata"]["labels"]["frazil.dev/restarts"], job["metadata"]["labels"]["frazil.dev/try"])
        for name in world.jobs
        for job in [world.job(name)]
    }
    return {name: world.status.get(name) for name in names} | {"children": children}


def test_one_gang_a_shard_as_many_at_once_as_there_are_replicas():
    world = running(replicas=2)
    assert world.jobs == ["ice-a0-0", "ice-a0-1"]
    assert [name for kind, name in sorted(world.objects) if kind != "Job"] == ["ice-a0", "ice"]
    assert world.phase == "Running"
    assert world.status["workers"] | {"selector": ""} == {"desired": 2, "active": 2, "ready": 2, "selector": ""}
    world.end_job("ice-a0-1", "Complete", succeeded=2)
    world.settle()
    assert world.jobs == ["ice-a0-0", "ice-a0-2"]
    assert world.status["shards"]["completed"] == "1"


def test_from_apply_to_complete():
    world = running()
    for shard in range(3):
        assert world.jobs == [f"ice-a0-{shard}"]
        runs(world, f"ice-a0-{shard}")
        world.settle()
        world.end_job(f"ice-a0-{shard}", "Complete", succeeded=2)
        world.settle()
    assert world.jobs == []
    assert world.phase == "Storing"
    assert world.status["progress"]["stored"] == 10
    world.finalization = DONE
    world.settle()
    assert world.condition("Complete") == ("True", "Succeeded")
    assert (world.status["attempt"], world.status["restarts"]) == (0, 0)
    GenerationJobStatus.model_validate(world.status)


def test_a_steady_gang_is_not_written_again():
    world = running(replicas=2)
    before = world.writes
    for _ in range(10):
        world.later(30)
        world.step()
    assert world.writes == before


def test_a_lost_rank_replaces_its_gang_and_leaves_the_other_alone():
    world = running(replicas=2)
    other = copy.deepcopy(world.job("ice-a0-1"))
    breaks(world, "ice-a0-0")
    world.settle()
    assert world.jobs == ["ice-a0-1", "ice-a1-0"]
    assert world.job("ice-a0-1") == other
    assert (world.status["attempt"], world.status["restarts"]) == (1, 1)
    labels = world.job("ice-a1-0")["metadata"]["labels"]
    assert (labels["frazil.dev/shard"], labels["frazil.dev/try"], labels["frazil.dev/restarts"]) == ("0", "1", "1")


def test_a_restart_is_told_with_its_reason_and_until_the_next_attempt_runs():
    world = running()
    breaks(world, "ice-a0-0")
    world.settle()
    assert world.condition("Restarting") == ("True", "WorkerFailed")
    assert world.condition("PodsReady") == ("False", "WaitingForPods")
    assert world.phase == "Restarting"
    assert "rank 0 ended with 1" in str(world.status["conditions"])
    runs(world, "ice-a1-0")
    world.settle()
    assert world.condition("Restarting") == ("False", "Restarted")
    assert world.phase == "Running"


def test_a_disruption_is_free_of_charge():
    world = running()
    for attempt in range(6):
        breaks(world, f"ice-a{attempt}-0", 137, conditions=[EVICTED], reason="PodFailurePolicy")
        world.settle()
    assert (world.status["attempt"], world.status["restarts"]) == (6, 0)
    assert world.condition("Restarting") == ("True", "Disrupted")
    assert world.job().get("metadata")["labels"]["frazil.dev/try"] == "0"


@pytest.mark.parametrize(
    ("rules", "code", "conditions", "charged"),
    [
        ([{"action": "Ignore", "onExitCodes": [9]}], 9, [], 0),
        ([{"action": "Ignore", "onExitCodes": [9]}], 8, [], 1),
        ([{"action": "Count", "onDisruption": True}], 137, [EVICTED], 1),
        ([{"action": "Ignore", "onExitCodes": [78]}], 78, [], 0),
        ([{"action": "Count", "onExitCodes": [9]}, {"action": "FailJob", "onExitCodes": [9]}], 9, [], 1),
    ],
)
def test_the_jobs_own_rules_come_first_and_the_first_that_applies_decides(rules, code, conditions, charged):
    world = running(failurePolicy={"rules": rules})
    breaks(world, "ice-a0-0", code, conditions=conditions)
    world.settle()
    assert world.jobs == ["ice-a1-0"]
    assert world.status["restarts"] == charged


def test_bad_configuration_fails_the_job_and_stops_the_other_gangs():
    world = running(replicas=2)
    breaks(world, "ice-a0-0", 78)
    world.settle()
    assert world.condition("Failed") == ("True", "BadConfiguration")
    assert world.job("ice-a0-1")["spec"]["suspend"] is True
    assert world.jobs == ["ice-a0-0", "ice-a0-1"]


def test_bad_input_gives_the_shard_up_and_the_next_one_begins():
    policy = {"retriesPerShard": 3, "maxFailedShards": 1}
    world = running(failurePolicy=policy, successPolicy={"minStoredPercent": 50})
    breaks(world, "ice-a0-0", 65)
    world.settle()
    assert world.status["shards"]["failed"] == "0"
    assert world.jobs == ["ice-a0-1"]
    assert world.status["restarts"] == 0
    breaks(world, "ice-a0-1", 65)
    world.settle()
    assert world.condition("Failed") == ("True", "MaxFailedShards")
    assert "2 shards have failed, 1 may" in str(world.status["conditions"])


def test_a_shard_is_given_up_after_its_retries():
    policy = {"retriesPerShard": 1, "maxFailedShards": 3, "maxRestarts": 100}
    world = running(failurePolicy=policy)
    breaks(world, "ice-a0-0")
    world.settle()
    assert world.jobs == ["ice-a1-0"]
    breaks(world, "ice-a1-0")
    world.settle()
    assert world.status["shards"]["failed"] == "0"
    assert world.jobs == ["ice-a2-1"]
    assert world.job()["metadata"]["labels"]["frazil.dev/try"] == "0"


def test_restarts_are_charged_over_the_whole_job():
    world = running(failurePolicy={"retriesPerShard": 20, "maxRestarts": 1})
    breaks(world, "ice-a0-0")
    world.settle()
    world.end_job("ice-a1-0", "Complete")
    world.settle()
    assert world.jobs == ["ice-a2-1"]
    breaks(world, "ice-a2-1")
    world.settle()
    assert world.condition("Failed") == ("True", "MaxRestartsExceeded")


def test_after_a_restart_no_attempt_is_used_again():
    world = running(replicas=2, failurePolicy={"retriesPerShard": 20, "maxRestarts": 100})
    for _ in range(4):
        for name in world.jobs:
            breaks(world, name)
        world.settle()
    while world.jobs:
        world.end_job(world.jobs[0], "Complete")
        world.settle()
    assert len(world.made) == len(set(world.made))
    assert world.status["restarts"] == 8
    assert world.status["attempt"] == max(attempts(world))


def test_a_gang_that_somebody_deleted_is_made_again_under_a_new_name_once_attempts_count():
    world = running()
    breaks(world, "ice-a0-0")
    world.settle()
    world.remove("Job", "ice-a1-0")
    world.settle()
    assert world.jobs == ["ice-a2-0"]
    assert world.status["restarts"] == 1


@pytest.mark.parametrize("code", [1, 65])
def test_one_gang_fails_and_the_operator_dies_anywhere(code):
    def make():
        world = running(replicas=2, failurePolicy={"retriesPerShard": 3, "maxFailedShards": 2})
        breaks(world, "ice-a0-0", code)
        return world

    survives_a_crash_anywhere(make)


def test_one_gang_is_done_and_the_operator_dies_anywhere():
    def make():
        world = running(replicas=2)
        world.end_job("ice-a0-0", "Complete")
        return world

    survives_a_crash_anywhere(make)


def test_the_first_gangs_are_made_and_the_operator_dies_anywhere():
    def make():
        world = World(gang_job(replicas=3))
        world.inspection = Inspection(pin=pin())
        return world

    survives_a_crash_anywhere(make)


def test_a_replaced_gang_is_cleared_away_and_the_operator_dies_anywhere():
    def make():
        world = running(replicas=2)
        breaks(world, "ice-a0-0")
        world.step()
        assert world.jobs == ["ice-a0-0", "ice-a0-1", "ice-a1-0"]
        world.end_job("ice-a0-1", "Complete")
        return world

    survives_a_crash_anywhere(make)


def test_two_gangs_fail_at_once_and_the_operator_dies_anywhere():
    def make():
        world = running(replicas=2)
        breaks(world, "ice-a0-0")
        breaks(world, "ice-a0-1")
        return world

    survives_a_crash_anywhere(make)


def test_a_restart_beside_a_gang_that_runs_is_not_over_before_the_next_attempt_runs():
    world = running(replicas=2)
    breaks(world, "ice-a0-0")
    world.settle()
    assert world.condition("Restarting") == ("True", "WorkerFailed")
    assert world.condition("PodsReady") == ("False", "WaitingForPods")


def test_a_failure_that_waits_for_a_free_replica_is_charged_once():
    world = running(replicas=2, failurePolicy={"retriesPerShard": 20, "maxRestarts": 100})
    breaks(world, "ice-a0-0")
    breaks(world, "ice-a0-1")
    world.body["spec"]["workers"]["replicas"] = 1
    for _ in range(5):
        world.later(30)
        world.settle()
    assert world.status["restarts"] == 1, "the other waits, and is charged when it's made again"
    world.body["spec"]["workers"]["replicas"] = 2
    world.settle()
    assert world.status["restarts"] == 2


def test_a_failure_that_waits_for_a_gang_provider_is_charged_once():
    world = running(scheduling={"gang": "Required"}, gang=GangSupport("volcano"))
    world.gang = GangSupport()
    breaks(world, "ice-a0-0")
    world.settle()
    assert world.condition("Failed") is None
    assert world.status["restarts"] == 0
    world.gang = GangSupport("volcano")
    world.settle()
    assert world.jobs == ["ice-a1-0"]
    assert world.status["restarts"] == 1


def test_a_disruption_is_free_even_when_its_pod_has_gone():
    """An evicted pod goes once the Job has counted it; the Job's own reason still says that its one rule applied."""
    world = running()
    world.end_job("ice-a0-0", "Failed", reason="PodFailurePolicy", message="Pod team/ice-a0-0-0 has condition …")
    world.settle()
    assert world.status["restarts"] == 0


def test_a_rule_that_ends_the_job_is_told_as_one():
    world = running(failurePolicy={"rules": [{"action": "FailJob", "onExitCodes": [9]}]})
    breaks(world, "ice-a0-0", 9)
    world.settle()
    assert world.condition("Failed") == ("True", "FailureRule")


def test_the_first_gang_deleted_by_somebody_is_made_again_under_a_new_name():
    world = running()
    world.remove("Job", "ice-a0-0")
    world.settle()
    assert len(world.made) == len(set(world.made))


def test_gangs_that_somebody_deleted_are_made_again_after_the_spec_has_changed():
    world = running()
    world.body["spec"]["workers"]["replicas"] = 2
    world.settle()
    for name in world.jobs:
        world.remove("Job", name)
    world.settle()
    assert len(world.jobs) == 2


def test_prompts_that_changed_once_all_gangs_have_gone_make_no_new_shard():
    """The operator restarted: the answer in its memory is gone, and the file is inspected anew."""
    world = running(prompts={"uri": "s3://b/p.jsonl", "perShard": 4})
    for shard in range(3):
        world.end_job(f"ice-a0-{shard}", "Complete")
        world.settle()
    assert world.phase == "Storing"
    world.inspection = Inspection(pin=pin(count=20) | {"sha256": "cd" * 32})
    world.settle()
    assert world.jobs == []
    assert world.status["prompts"] == {"count": 10, "sha256": "ab" * 32}


def test_a_replaced_gang_on_its_way_out_is_not_deleted_again():
    world = running()
    breaks(world, "ice-a0-0")
    world.step()
    world.job("ice-a0-0")["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    assert world.plan().delete == ()


def test_a_job_that_fails_announces_no_restart():
    world = running(replicas=2)
    breaks(world, "ice-a0-0", 78)
    breaks(world, "ice-a0-1", 1)
    world.settle()
    assert world.condition("Failed") == ("True", "BadConfiguration")
    assert world.condition("Restarting") is None


@pytest.mark.parametrize("provider", ["native-v1beta1", "volcano", "coscheduling"])
def test_a_provider_places_each_gang_together(provider):
    world = running(replicas=2, gang=GangSupport(provider))
    assert sorted(name for kind, name in world.objects if kind == "PodGroup") == ["ice-a0-0", "ice-a0-1"]
    assert world.status["scheduling"]["provider"] == provider
    for name in world.jobs:
        world.pod(name, phase="Running")
    world.settle()
    assert world.condition("GangScheduled") == ("True", "Scheduled")


@pytest.mark.parametrize(
    ("wanted", "provider", "told", "made"),
    [
        ("Auto", "none", ("False", "ProviderUnavailable"), 1),
        ("None", "volcano", ("True", "NotRequired"), 1),
    ],
)
def test_without_a_provider_the_spec_decides(wanted, provider, told, made):
    world = started(gang_job(scheduling={"gang": wanted}), gang=GangSupport(provider))
    assert world.condition("GangScheduled") == told
    assert len(world.jobs) == made
    assert not [name for kind, name in world.objects if kind == "PodGroup"]


def test_a_required_provider_is_waited_for():
    world = World(gang_job(scheduling={"gang": "Required"}))
    world.inspection = Inspection(pin=pin())
    world.step()
    assert world.condition("GangScheduled") == ("False", "ProviderUnavailable")
    assert world.jobs == []
    world.gang = GangSupport("coscheduling")
    world.settle()
    assert world.jobs == ["ice-a0-0"]


def test_waiting_for_a_provider_writes_nothing():
    world = World(gang_job(scheduling={"gang": "Required"}))
    world.inspection = Inspection(pin=pin())
    world.settle()
    before = world.writes
    for _ in range(3):
        world.later(30)
        world.step()
    assert world.writes == before


def test_a_gang_that_does_not_fit_says_so_in_the_schedulers_words():
    world = started(gang_job(), gang=GangSupport("native-v1beta1"))
    refused = {"type": "PodGroupInitiallyScheduled", "status": "False", "message": "0/3 nodes are available"}
    world.objects[("PodGroup", "ice-a0-0")]["status"] = {"conditions": [refused]}
    world.settle()
    assert world.condition("GangScheduled") == ("False", "Unschedulable")
    assert "0/3 nodes" in str(world.status["conditions"])
    assert world.status["scheduling"]["message"] == "0/3 nodes are available"


def test_the_next_gang_finds_what_somebody_deleted():
    world = running(replicas=1)
    del world.objects[("ConfigMap", "ice-a0")], world.objects[("Service", "ice")]
    before = world.writes
    world.settle()
    assert world.writes == before, "the gang that runs has what it needs"
    breaks(world, "ice-a0-0")
    world.settle()
    assert {("ConfigMap", "ice-a0"), ("Service", "ice")} <= world.objects.keys()


def test_a_gang_whose_pod_waits_finds_what_somebody_deleted():
    world = started(gang_job(replicas=2))
    del world.objects[("ConfigMap", "ice-a0")], world.objects[("Service", "ice")]
    world.idle_pod("ice-a0-1")
    world.later(60)
    world.settle()
    assert {("ConfigMap", "ice-a0"), ("Service", "ice")} <= world.objects.keys()
    assert world.made == ["ice-a0-0", "ice-a0-1"]


def test_what_was_said_of_a_gang_that_is_over_does_not_count():
    world = started(gang_job(), gang=GangSupport("native-v1beta1"))
    refused = {"type": "PodGroupInitiallyScheduled", "status": "False", "message": "0/3 nodes are available"}
    world.objects[("PodGroup", "ice-a0-0")]["status"] = {"conditions": [refused]}
    breaks(world, "ice-a0-0", 137, conditions=[EVICTED])
    world.settle()
    world.pod("ice-a1-0", phase="Running")
    world.settle()
    assert world.condition("GangScheduled") == ("True", "Scheduled")


def test_groups_go_with_their_gangs():
    world = running(gang=GangSupport("volcano"))
    world.end_job("ice-a0-0", "Complete")
    world.settle()
    assert [name for kind, name in world.objects if kind == "PodGroup"] == ["ice-a0-1"]


def test_a_volcano_group_that_waited_and_was_placed_is_scheduled():
    world = running(gang=GangSupport("volcano"))
    world.pod("ice-a0-0", phase="Running")
    said = [
        {"type": "Unschedulable", "status": "True", "lastTransitionTime": "2026-11-23T10:00:00Z"},
        {"type": "Scheduled", "status": "True", "lastTransitionTime": "2026-11-23T10:01:00Z"},
    ]
    world.objects[("PodGroup", "ice-a0-0")]["status"] = {"phase": "Running", "conditions": said}
    world.settle()
    assert world.condition("GangScheduled") == ("True", "Scheduled")


def test_a_suspended_job_holds_its_gangs_and_replaces_none():
    world = running(replicas=2)
    world.body["spec"]["suspend"] = True
    breaks(world, "ice-a0-0")
    world.settle()
    assert world.jobs == ["ice-a0-0", "ice-a0-1"]
    assert world.job("ice-a0-1")["spec"]["suspend"] is True
    assert world.status["workers"]["desired"] == 0
    world.body["spec"]["suspend"] = False
    world.settle()
    assert world.jobs == ["ice-a0-1", "ice-a1-0"]
    assert world.job("ice-a0-1")["spec"]["suspend"] is False


def test_fewer_replicas_let_the_gangs_at_work_finish_their_shards():
    world = running(replicas=3)
    world.body["spec"]["workers"]["replicas"] = 1
    world.settle()
    assert len(world.jobs) == 3
    world.end_job("ice-a0-0", "Complete")
    world.settle()
    assert world.jobs == ["ice-a0-1", "ice-a0-2"]


def test_a_gang_on_its_way_out_keeps_its_replica_until_it_has_gone():
    world = running()
    world.job()["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    world.settle()
    assert world.jobs == ["ice-a0-0"]
