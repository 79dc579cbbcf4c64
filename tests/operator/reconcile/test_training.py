"""A TrainingJob: one gang, attempt after attempt; every crash point of it."""

import pytest
from operator_world import UID, World, merge, started, training_job

from frazil_jobs.api.trainingjob import TrainingJobStatus
from frazil_jobs.outputs.progress import ShardProgress, TrainingProgress
from frazil_operator.reconcile.plan import Finalization, GangSupport

EVICTED = {"type": "DisruptionTarget", "status": "True", "message": "evicted by the kubelet"}
ONE_POD = {"workers": {"gpusPerNode": 2}}
RECOUNTED = Finalization(total=3, stored=3, bytes=1234, manifest="manifest.json", gallery="index.html")


def running(**spec):
    world = started(training_job(**spec))
    runs(world)
    return world


def runs(world):
    """The pods of the newest attempt are ready."""
    world.job()["status"] = {"active": 2, "ready": 2}
    world.settle()


def breaks(world, code=1, *, conditions=()):
    """A rank of the newest attempt is lost."""
    (name,) = world.jobs
    pod = world.failed_pod(name, code, f"rank 1 ended with {code}")
    pod["status"]["conditions"] = list(conditions)
    world.end_job(name, "Failed", reason="PodFailurePolicy" if conditions else "BackoffLimitExceeded", failed=2)


def told(**progress):
    """What Redis holds of the leader."""
    return (TrainingProgress(**{"step": 0, **progress}),)


def facts(world):
    """What must not depend on when the operator died."""
    names = ("attempt", "restarts", "phase", "checkpoint")
    return {name: world.status.get(name) for name in names} | {"children": sorted(world.objects)}


def survives_a_crash_anywhere(make):
    """The operator dies before each write on the way to rest, and comes back: nothing is different in the end."""
    plain = make()
    before = plain.writes
    plain.settle()
    total = plain.writes - before
    assert total, "nothing is written, so there is no point to die at"
    for point in range(total):
        world = make()
        left = point
        while left:
            points = world.crash_points()
            world.step(dies_after=left)
            left -= min(left, points)
        world.settle()
        assert facts(world) == facts(plain), f"dead after {point} of {total} writes"
        assert len(world.made) == len(set(world.made)), "an attempt was used twice"


def test_from_apply_to_complete():
    world = World(training_job())
    world.settle()
    assert sorted(world.objects) == [("ConfigMap", "dit-a0"), ("Job", "dit-a0"), ("Service", "dit")]
    assert world.phase == "Starting"
    runs(world)
    assert world.phase == "Running"
    world.progress = told(step=40, loss="2.5", checkpoint={"step": 40, "attempt": 0, "uri": "s3://frazil/c/40"})
    world.settle()
    assert world.status["progress"]["summary"] == "40/100"
    assert world.condition("CheckpointStored") == ("True", "Stored")
    world.end_job(None, "Complete", succeeded=2, ready=0)
    world.settle()
    assert world.phase == "Storing"
    assert world.condition("OutputsStored") == ("False", "Finalizing")
    world.finalization = RECOUNTED
    world.settle()
    assert world.condition("OutputsStored") == ("True", "AllStored")
    outputs = world.status["outputs"]
    assert outputs["bytes"] == 1234
    assert (outputs["manifest"], outputs["gallery"]) == (
        outputs["uri"] + "manifest.json",
        outputs["uri"] + "index.html",
    )
    assert world.condition("Complete") == ("True", "Succeeded")
    TrainingJobStatus.model_validate(world.status)


def done():
    """All steps are done, and nobody has recounted the results."""
    world = running()
    world.end_job(None, "Complete", succeeded=2)
    world.settle()
    return world


def test_the_recount_is_asked_for_until_it_is_there():
    world = done()
    for answer in (None, Finalization(error="the store is silent", exit_code=75)):
        world.finalization = answer
        plan = world.step()
        (asked,) = plan.asks
        assert (asked.name, asked.key) == ("finalize", f"{UID}/finalize-100")
        assert asked.payload["job"]["kind"] == "TrainingJob"
        assert asked.payload["prefix"].startswith("team/dit-")
        assert plan.requeue_after
    assert world.condition("OutputsStored") == ("False", "UploadFailed")
    assert world.phase == "Storing"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Finalization(total=3, stored=2, error="model/b is not stored", exit_code=75), "OutputsLost"),
        (Finalization(error="there is no destination", exit_code=78), "BadConfiguration"),
    ],
)
def test_a_training_whose_results_are_not_in_the_store_has_failed(answer, reason):
    world = done()
    world.finalization = answer
    world.settle()
    assert world.condition("Failed") == ("True", reason)
    assert world.condition("Complete") is None


def test_steps_that_grow_during_the_recount_ask_for_another():
    world = done()
    world.body["spec"]["steps"] = 200
    world.settle()
    assert world.jobs == ["dit-a1"]
    world.end_job("dit-a1", "Complete", succeeded=2)
    (asked,) = world.step().asks
    assert asked.key == f"{UID}/finalize-200"


def test_one_pod_needs_no_service_and_no_gang():
    world = started(training_job(**ONE_POD), gang=GangSupport("volcano"))
    assert sorted(world.objects) == [("ConfigMap", "dit-a0"), ("Job", "dit-a0")]
    assert world.condition("GangScheduled") == ("True", "NotRequired")


def test_four_writes_to_running_for_one_pod():
    world = running(**ONE_POD)
    assert world.phase == "Running"
    assert world.writes <= 4


def test_a_steady_state_is_not_written_again():
    world = running()
    before = world.writes
    for _ in range(10):
        world.later(30)
        world.step()
    assert world.writes == before


def test_any_lost_rank_restarts_all_as_the_next_attempt():
    world = running()
    breaks(world)
    world.settle()
    assert world.jobs == ["dit-a1"]
    assert (world.status["attempt"], world.status["restarts"]) == (1, 1)
    assert world.condition("Restarting") == ("True", "WorkerFailed")
    assert world.condition("PodsReady") == ("False", "WaitingForPods")
    assert world.phase == "Restarting"
    assert "rank 1 ended with 1" in str(world.status["conditions"])
    runs(world)
    assert world.condition("Restarting") == ("False", "Restarted")
    assert world.phase == "Running"


def test_the_next_attempt_is_made_before_the_failed_one_is_deleted():
    """Its charge is on it, so that none is forgotten; and the reason for it can be read until then."""
    world = running()
    breaks(world)
    plan = world.step()
    assert plan.delete == ()
    assert world.jobs == ["dit-a0", "dit-a1"]
    assert world.job("dit-a1")["metadata"]["labels"]["frazil.dev/restarts"] == "1"
    (deletion,) = world.step().delete
    assert (deletion.name, deletion.uid) == ("dit-a0", "uid-3")


def test_disruptions_are_free_of_charge():
    world = running(failurePolicy={"maxRestarts": 0, "maxRestartsWithoutProgress": 10})
    for _ in range(5):
        breaks(world, 137, conditions=[EVICTED])
        world.settle()
    assert (world.status["attempt"], world.status["restarts"]) == (5, 0)
    assert world.condition("Restarting") == ("True", "Disrupted")


@pytest.mark.parametrize("most", [0, 1, 3])
def test_as_many_restarts_are_charged_as_the_policy_allows(most):
    world = running(failurePolicy={"maxRestarts": most, "maxRestartsWithoutProgress": 1000})
    for _ in range(most):
        breaks(world)
        world.settle()
        assert world.condition("Failed") is None
    breaks(world)
    world.settle()
    assert world.condition("Failed") == ("True", "MaxRestartsExceeded")
    assert world.status["restarts"] == most
    assert world.made == [f"dit-a{attempt}" for attempt in range(most + 1)]


@pytest.mark.parametrize("disrupted", [True, False])
def test_a_job_that_only_crashes_again_fails_even_when_restarts_are_left(disrupted):
    world = running(failurePolicy={"maxRestarts": 1000, "maxRestartsWithoutProgress": 2})
    for _ in range(2):
        breaks(world, conditions=[EVICTED] * disrupted)
        world.settle()
        assert world.condition("Failed") is None
    breaks(world, conditions=[EVICTED] * disrupted)
    world.settle()
    assert world.condition("Failed") == ("True", "NoProgress")


def test_a_new_checkpoint_begins_the_count_anew():
    world = running(failurePolicy={"maxRestarts": 1000, "maxRestartsWithoutProgress": 2})
    for attempt in range(5):
        checkpoint = {"step": 10 + attempt, "attempt": attempt, "uri": f"s3://frazil/c/{attempt}"}
        world.progress = told(step=20, checkpoint=checkpoint)
        breaks(world)
        world.settle()
    assert world.condition("Failed") is None
    assert world.status["checkpoint"]["step"] == 14


@pytest.mark.parametrize("code", [78, 65])
def test_bad_configuration_and_bad_input_fail_the_job_at_once(code):
    world = running()
    breaks(world, code)
    world.settle()
    assert world.condition("Failed") == ("True", "BadConfiguration")
    assert f"rank 1 ended with {code}" in str(world.status["conditions"])
    assert world.jobs == ["dit-a0"]


@pytest.mark.parametrize(
    ("rules", "code", "conditions", "charged"),
    [
        ([{"action": "Ignore", "onExitCodes": [9]}], 9, [], 0),
        ([{"action": "Ignore", "onExitCodes": [9]}], 8, [], 1),
        ([{"action": "Count", "onDisruption": True}], 137, [EVICTED], 1),
        ([{"action": "Count", "onExitCodes": [78]}], 78, [], 1),
    ],
)
def test_the_jobs_own_rules_come_first(rules, code, conditions, charged):
    world = running(failurePolicy={"rules": rules})
    breaks(world, code, conditions=conditions)
    world.settle()
    assert world.jobs == ["dit-a1"]
    assert world.status["restarts"] == charged


def test_a_rule_that_ends_the_job_is_told_as_one():
    world = running(failurePolicy={"rules": [{"action": "FailJob", "onExitCodes": [9]}]})
    breaks(world, 9)
    world.settle()
    assert world.condition("Failed") == ("True", "FailureRule")


def test_a_gang_on_its_way_to_failing_is_replaced_without_waiting_for_its_last_pod():
    world = running()
    world.failed_pod("dit-a0", 1)
    world.end_job("dit-a0", "FailureTarget", reason="BackoffLimitExceeded", active=1)
    world.settle()
    assert world.jobs == ["dit-a1"]


@pytest.mark.parametrize("queue", [None, "gpus"])
def test_the_job_is_made_and_the_operator_dies_anywhere(queue):
    survives_a_crash_anywhere(lambda: World(training_job(scheduling={"queueName": queue} if queue else {})))


@pytest.mark.parametrize(("code", "conditions"), [(1, []), (137, [EVICTED]), (78, [])])
def test_a_rank_is_lost_and_the_operator_dies_anywhere(code, conditions):
    def make():
        world = running()
        breaks(world, code, conditions=conditions)
        return world

    if code == 78:
        return survives_a_crash_anywhere(make)
    world, plain = make(), make()
    plain.settle()
    points = world.crash_points()
    for point in range(points):
        world = make()
        world.step(dies_after=point)
        world.settle()
        names = ("attempt", "restarts")
        assert [world.status[name] for name in names] == [plain.status[name] for name in names]
        assert world.made == ["dit-a0", "dit-a1"], f"dead after {point} of {points} writes"
    return None


@pytest.mark.parametrize("conditions", [[], [EVICTED]])
def test_the_phase_after_a_crash_is_that_of_the_new_attempt(conditions):
    """The new attempt was made, and the operator died before it wrote the status."""

    def make():
        world = running()
        breaks(world, conditions=conditions)
        return world

    survives_a_crash_anywhere(make)


def test_many_failures_and_deaths_never_charge_twice_nor_use_an_attempt_twice():
    for deaths in range(1, 5):
        world = running(failurePolicy={"maxRestarts": 100, "maxRestartsWithoutProgress": 1000})
        for lost in range(1, 6):
            breaks(world)
            world.step(dies_after=deaths)
            world.settle()
            assert world.jobs == [f"dit-a{lost}"]
            assert (world.status["attempt"], world.status["restarts"]) == (lost, lost)
        assert world.made == [f"dit-a{attempt}" for attempt in range(6)]


def test_it_is_resumed_with_the_restarts_that_were_charged_when_its_status_is_lost():
    world = running()
    breaks(world)
    world.settle()
    world.body["status"] = {}
    world.settle()
    assert (world.status["attempt"], world.status["restarts"]) == (1, 1)


def test_a_gang_that_somebody_deleted_is_followed_by_the_next_attempt():
    """Its pods may still run: under the same name they would meet those of the new one."""
    world = running()
    world.remove("Job", "dit-a0")
    world.settle()
    assert world.jobs == ["dit-a1"]


def test_a_new_attempt_that_somebody_deleted_is_not_used_again():
    world = running(failurePolicy={"maxRestarts": 100, "maxRestartsWithoutProgress": 1000})
    breaks(world)
    world.step()
    world.remove("Job", "dit-a1")
    world.settle()
    assert world.made == ["dit-a0", "dit-a1", "dit-a2"]


def test_steps_that_grow_between_the_config_map_and_the_gang_do_not_block_the_job():
    world = World(training_job())
    world.step(dies_after=1)
    assert list(world.objects) == [("ConfigMap", "dit-a0")]
    world.body["spec"]["steps"] = 200
    world.settle()
    assert len(world.jobs) == 1
    assert "steps: 200" in world.objects[("ConfigMap", "dit-a0")]["data"]["job.yaml"]
    assert world.job()["metadata"]["annotations"]["frazil.dev/steps"] == "200"


def test_steps_that_grow_while_an_attempt_runs_are_made_by_the_next():
    world = running()
    world.body["spec"]["steps"] = 200
    world.settle()
    world.progress = told(step=100, checkpoint={"step": 100, "attempt": 0, "uri": "s3://frazil/c/100"})
    world.end_job(None, "Complete", succeeded=2)
    world.settle()
    assert world.condition("Complete") is None
    assert world.jobs == ["dit-a1"]
    assert world.status["restarts"] == 0


def test_steps_that_grow_reach_the_next_attempt():
    world = running()
    world.body["spec"]["steps"] = 200
    breaks(world)
    world.settle()
    assert "steps: 200" in world.objects[("ConfigMap", "dit-a1")]["data"]["job.yaml"]
    assert world.status["progress"]["totalSteps"] == 200


def test_a_failure_that_waits_for_a_gang_provider_is_charged_once():
    world = started(training_job(scheduling={"gang": "Required"}), gang=GangSupport("volcano"))
    runs(world)
    world.gang = GangSupport()
    breaks(world)
    world.settle()
    assert world.condition("Failed") is None
    assert world.status["restarts"] == 0
    world.gang = GangSupport("volcano")
    world.settle()
    assert world.jobs == ["dit-a1"]
    assert world.status["restarts"] == 1


def test_a_disruption_is_free_even_when_its_pod_has_gone():
    """An evicted pod goes once the Job has counted it; the Job's own reason still says that its one rule applied."""
    world = running()
    world.end_job(None, "Failed", reason="PodFailurePolicy", message="Pod team/dit-a0-1 has condition …")
    world.settle()
    assert world.status["restarts"] == 0


def test_a_required_provider_is_waited_for_without_a_pod():
    world = started(training_job(scheduling={"gang": "Required"}))
    assert world.jobs == []
    assert world.condition("GangScheduled") == ("False", "ProviderUnavailable")
    world.gang = GangSupport("native-v1beta1")
    world.settle()
    assert world.jobs == ["dit-a0"]
    assert ("PodGroup", "dit-a0") in world.objects


def test_suspended_and_resumed_it_goes_on_with_the_same_gang():
    world = running()
    world.body["spec"]["suspend"] = True
    world.settle()
    assert world.job()["spec"]["suspend"] is True
    world.job()["status"] = {"active": 0, "ready": 0}
    plan = world.settle()
    assert (world.phase, plan.requeue_after) == ("Suspended", None)
    world.body["spec"]["suspend"] = False
    world.settle()
    assert world.job()["spec"]["suspend"] is False
    assert (world.status["attempt"], world.status["restarts"]) == (0, 0)


def test_a_job_that_is_born_suspended_makes_nothing():
    world = World(training_job(suspend=True))
    plan = world.settle()
    assert (plan.requeue_after, world.objects) == (None, {})


def test_a_queue_starts_it_and_its_wait_is_not_counted():
    world = started(training_job(scheduling={"queueName": "gpus"}, preRunningDeadlineSeconds=30))
    assert world.job()["spec"]["suspend"] is True
    assert world.phase == "Queued"
    world.later(1000)
    world.settle()
    assert world.condition("Failed") is None
    merge(world.job()["spec"], {"suspend": False})
    world.settle()
    assert world.condition("QuotaReserved") == ("True", "Admitted")
    world.later(31)
    world.settle()
    assert world.condition("Failed") == ("True", "PreRunningDeadlineExceeded")


def test_a_preempted_gang_is_not_restarted_by_us():
    world = started(training_job(scheduling={"queueName": "gpus"}))
    merge(world.job()["spec"], {"suspend": False})
    runs(world)
    merge(world.job()["spec"], {"suspend": True})
    evicted = {"type": "Evicted", "status": "True", "message": "preempted by team b"}
    workload = {"metadata": {"name": "w", "namespace": "team"}, "kind": "Workload", "apiVersion": "kueue.x-k8s.io/v1"}
    world.make({**workload, "spec": {}, "status": {"conditions": [evicted]}})
    world.settle()
    assert world.condition("QuotaReserved") == ("False", "Preempted")
    assert world.made == ["dit-a0"]


def test_a_complete_job_has_done_all_its_steps():
    """Redis is read every few seconds: the end of the gang is heard before its last step."""
    world = running()
    world.progress = told(step=95)
    world.settle()
    world.finalization = RECOUNTED
    world.end_job(None, "Complete", succeeded=2)
    world.settle()
    assert world.phase == "Complete"
    assert (world.status["progress"]["step"], world.status["progress"]["summary"]) == (100, "100/100")


def test_progress_stays_when_redis_is_emptied():
    world = running()
    world.progress = told(step=40, loss="2.5", checkpoint={"step": 40, "attempt": 0, "uri": "s3://frazil/c/40"})
    world.settle()
    world.progress = ()
    world.settle()
    assert world.status["progress"]["step"] == 40
    assert world.status["checkpoint"]["step"] == 40


def test_what_the_leader_measures_is_told_in_few_digits_with_what_follows_from_it():
    world = running(batchSize=32)
    world.progress = told(step=40, loss=1.2345678901234567e-05, throughput=12.3456, freeze_ratio=0.2)
    world.settle()
    progress = world.status["progress"]
    assert (progress["loss"], progress["throughput"], progress["freezeRatio"]) == ("1.235e-05", "12.35", "0.2")
    assert (progress["stepSeconds"], progress["estimatedRemainingSeconds"]) == ("2.592", 156)
    TrainingJobStatus.model_validate(world.status)
    world.finalization = RECOUNTED
    world.end_job(None, "Complete", succeeded=2)
    world.settle()
    assert world.status["progress"]["estimatedRemainingSeconds"] == 0


@pytest.mark.parametrize("throughput", [0.0, 1e-320, float("nan"), float("inf")])
def test_a_throughput_that_says_nothing_of_the_end_does_no_harm(throughput):
    world = running()
    world.progress = told(step=40, throughput=throughput)
    world.settle()
    assert world.status["progress"].get("estimatedRemainingSeconds", 0) == 0


def test_progress_of_more_than_there_is_to_do_is_not_believed():
    """A status with it would be refused by the API server, each time."""
    world = running()
    world.progress = told(step=10**30, checkpoint={"step": 10**30, "attempt": 0, "uri": "s3://frazil/c/0"})
    world.settle()
    assert world.status["progress"]["step"] == 100
    assert world.condition("CheckpointStored") == ("False", "NoCheckpoint")


def test_progress_of_shards_is_none_of_a_training():
    world = running()
    world.progress = (ShardProgress(shard=0, total=4, step=7, generated=1),)
    world.settle()
    assert world.status["progress"]["step"] == 0


def test_what_pods_wait_for_that_somebody_deleted_is_made_again_as_the_gang_was_made_for():
    world = started(training_job())
    before = dict(world.objects[("ConfigMap", "dit-a0")])
    del world.objects[("ConfigMap", "dit-a0")], world.objects[("Service", "dit")]
    world.idle_pod("dit-a0")
    world.body["spec"]["steps"] = 200
    world.later(61)
    world.settle()
    assert world.objects[("ConfigMap", "dit-a0")]["data"] == before["data"], "all pods of a gang do the same steps"
    assert ("Service", "dit") in world.objects
    assert world.made == ["dit-a0"]


def test_an_older_checkpoint_does_not_replace_a_newer_one():
    world = running()
    for step in (40, 20):
        world.progress = told(step=50, checkpoint={"step": step, "attempt": 0, "uri": f"s3://frazil/c/{step}"})
        world.settle()
    assert world.status["checkpoint"]["uri"] == "s3://frazil/c/40"


def test_progress_that_moves_is_written_no_more_often_than_the_settings_say():
    world = running()
    world.progress = told(step=1)
    world.settle()
    before = world.status_writes
    for step in range(2, 12):
        world.later(1)
        world.progress = told(step=step)
        world.step()
    assert world.status_writes - before <= 3


def test_a_stranger_of_the_same_name_is_waited_for():
    world = World(training_job(), strangers=("dit-a0",))
    plan = world.settle()
    assert not world.objects
    assert plan.requeue_after is not None
    world.strangers = ()
    world.settle()
    assert world.jobs == ["dit-a0"]


def test_a_gang_on_its_way_out_is_waited_for():
    world = running()
    world.job()["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    plan = world.step()
    assert plan.apply == ()
    assert plan.requeue_after is not None


def test_a_finished_job_whose_children_vanish_makes_nothing_again():
    world = running()
    world.finalization = RECOUNTED
    world.end_job(None, "Complete", succeeded=2)
    world.settle()
    world.objects.clear()
    before = world.writes
    world.later(1000)
    assert world.step().status is None
    assert world.writes == before


def test_the_active_deadline_fails_the_job_and_stops_its_pods():
    world = running(activeDeadlineSeconds=100)
    world.later(100)
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")
    assert world.job()["spec"]["suspend"] is True


def test_no_attempt_is_begun_after_the_deadline():
    world = running(activeDeadlineSeconds=100)
    world.later(100)
    breaks(world)
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")
    assert world.made == ["dit-a0"]


def test_a_pod_of_a_lost_node_is_given_up_so_that_its_gang_can_fail():
    world = running()
    pod = world.pod("dit-a0", 1, phase="Running")
    pod["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    world.later(61)
    (patch,) = world.plan().patch
    assert (patch.kind, patch.status, patch.body["status"]["phase"]) == ("Pod", True, "Failed")
