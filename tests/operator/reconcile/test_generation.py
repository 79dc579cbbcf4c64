"""A GenerationJob of one-pod replicas, followed from apply to its end."""

import dataclasses

import pytest
from operator_world import NOW, World, generation_job, merge, pin, started

from frazil_jobs.api.generationjob import GenerationJobStatus
from frazil_jobs.outputs.progress import ShardProgress, TrainingProgress
from frazil_operator.reconcile.plan import Finalization, Inspection

DONE = Finalization(total=10, stored=10, bytes=1000, manifest="manifest.json", gallery="index.html")


def running(**spec):
    world = started(generation_job(**spec))
    world.job()["status"] = {"active": 1, "ready": 1}
    world.settle()
    return world


def test_nothing_is_made_before_the_prompts_are_inspected():
    world = World(generation_job())
    plan = world.settle()
    assert not world.objects
    (ask,) = plan.asks
    assert ask.name == "inspect"
    assert ask.payload["job"]["spec"]["prompts"]["perShard"] == 4


def test_from_apply_to_complete():
    world = World(generation_job())
    world.settle()
    world.inspection = Inspection(pin=pin())
    world.settle()
    assert world.phase == "Starting"
    assert sorted(world.objects) == [("ConfigMap", "ice-a0"), ("Job", "ice-a0")]
    assert world.job()["spec"]["completions"] == 3
    world.job()["status"] = {"active": 1, "ready": 1}
    world.settle()
    assert world.phase == "Running"
    world.end_job(None, "Complete", completedIndexes="0-2", succeeded=3, ready=0)
    world.settle()
    assert world.phase == "Storing"
    world.finalization = DONE
    world.settle()
    assert world.phase == "Complete"
    assert world.condition("Complete") == ("True", "Succeeded")
    assert world.status["outputs"] == {
        "uri": "s3://frazil/results/team/ice-0a1b2c3d/",
        "manifest": "s3://frazil/results/team/ice-0a1b2c3d/manifest.json",
        "gallery": "s3://frazil/results/team/ice-0a1b2c3d/index.html",
        "bytes": 1000,
    }
    assert world.status["progress"]["summary"] == "10/10"
    GenerationJobStatus.model_validate(world.status)


def test_four_writes_to_running():
    world = World(generation_job())
    world.inspection = Inspection(pin=pin())
    world.settle()
    world.job()["status"] = {"active": 1, "ready": 1}
    world.settle()
    assert world.phase == "Running"
    assert world.writes <= 4


def test_a_steady_state_is_not_written_again():
    world = running()
    before = world.writes
    for _ in range(10):
        world.later(30)
        world.step()
    assert world.writes == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output": {"destination": "elsewhere"}}, "spec.output.destination"),
        ({"model": {"uri": "hf://org/model", "allowPickle": True}}, "allow.pickle"),
        ({"model": {"uri": "hf://org/model", "allowRemoteCode": True}}, "allow.remoteCode"),
    ],
)
def test_what_the_administrator_does_not_allow_fails_before_anything_is_made(change, words):
    world = World(generation_job(**change))
    world.inspection = Inspection(pin=pin())
    world.settle()
    assert world.condition("Failed") == ("True", "BadConfiguration")
    assert words in world.status["conditions"][0]["message"]
    assert not world.objects


def test_bad_prompts_fail_the_job_with_file_and_line():
    world = World(generation_job())
    world.inspection = Inspection(error="prompts.jsonl line 17: no prompt", exit_code=65)
    world.settle()
    assert world.condition("Failed") == ("True", "InvalidPrompts")
    assert "line 17" in str(world.status)


def test_a_store_that_is_down_is_asked_again():
    world = World(generation_job())
    world.inspection = Inspection(error="the store does not answer", exit_code=75)
    plan = world.settle()
    assert world.condition("PromptsInspected") == ("False", "PromptsUnreachable")
    assert plan.asks
    assert not world.status.get("completionTime")


def test_an_answer_within_seconds_is_the_first_that_a_job_tells_however_late_it_was_looked_at():
    world = World(generation_job())
    world.body["metadata"]["creationTimestamp"] = "2026-11-23T09:00:00Z"  # an hour ago: the queue was long
    world.asked_seconds = 0.0
    plan = world.settle()
    assert plan.asks
    assert plan.requeue_after == pytest.approx(10)
    assert world.status_writes == 0
    world.asked_seconds = 10.0
    world.settle()
    assert world.condition("PromptsInspected") == ("False", "Inspecting")


def test_a_worker_that_does_not_answer_is_told_of_once_and_forgotten_when_it_does():
    world = World(generation_job())
    world.settle()
    assert world.condition("PromptsInspected") == ("False", "Inspecting")
    assert [event.reason for event in world.events] == []
    world.later(121)
    plan = world.settle()
    assert world.condition("PromptsInspected") == ("False", "WorkerSilent")
    assert [(event.type, event.reason) for event in world.events] == [("Warning", "WorkerSilent")]
    assert plan.asks
    written = world.status_writes
    world.later(600)
    world.settle()
    assert world.status_writes == written, "told once"
    world.inspection = Inspection(pin=pin())
    world.settle()
    assert world.condition("PromptsInspected") == ("True", "Inspected")
    assert world.phase == "Starting"


def test_a_config_map_is_read_before_the_question_is_asked():
    world = World(generation_job(prompts={"configMapRef": {"name": "words", "key": "p.jsonl"}}))
    plan = world.plan()
    assert plan.read_config_map == ("words", "p.jsonl")
    assert not plan.asks
    world.config_map_text = '{"prompt": "x"}'
    (ask,) = world.plan().asks
    assert ask.payload["text"] == world.config_map_text


def test_suspended_and_idle_means_no_look_and_no_write():
    world = running()
    world.body["spec"]["suspend"] = True
    world.settle()
    assert world.job()["spec"]["suspend"] is True
    world.job()["status"] = {"active": 0, "ready": 0}
    plan = world.settle()
    assert world.phase == "Suspended"
    assert "startTime" not in world.status
    assert plan.requeue_after is None
    before = world.writes
    world.later(3600)
    world.step()
    assert world.writes == before


def test_a_job_that_is_born_suspended_asks_for_nothing():
    world = World(generation_job(suspend=True))
    plan = world.settle()
    assert (plan.asks, plan.requeue_after, world.objects) == ((), None, {})


def test_a_resumed_job_goes_on_with_what_is_missing():
    world = running()
    world.body["spec"]["suspend"] = True
    world.settle()
    world.later(100)
    world.body["spec"]["suspend"] = False
    world.settle()
    assert world.job()["spec"]["suspend"] is False
    assert world.condition("Suspended") == ("False", "Resumed")
    assert world.status["startTime"] == "2026-11-23T10:01:40Z"


def test_replicas_can_be_scaled_and_a_queue_that_admits_fewer_is_left_alone():
    world = running(workers={"replicas": 3, "gpusPerNode": 2})
    assert world.job()["spec"]["parallelism"] == 3
    world.body["spec"]["workers"]["replicas"] = 2
    world.settle()
    assert world.job()["spec"]["parallelism"] == 2
    world.job()["spec"]["parallelism"] = 1  # Kueue's partial admission
    world.settle()
    assert world.job()["spec"]["parallelism"] == 1


def test_applied_once_and_then_only_the_switches_are_patched():
    """Kueue #1726: what the queue has put into the Job (suspend, node selector, tolerations) is never written over."""
    world = started(generation_job(scheduling={"queueName": "gpus"}))
    assert world.job()["spec"]["suspend"] is True
    assert world.condition("QuotaReserved") == ("False", "WaitingForQuota")
    assert world.phase == "Queued"
    assert "startTime" not in world.status
    merge(world.job()["spec"], {"suspend": False, "template": {"spec": {"nodeSelector": {"pool": "a"}}}})
    plan = world.settle()
    assert (plan.apply, plan.patch) == ((), ())
    assert world.condition("QuotaReserved") == ("True", "Admitted")
    assert world.status["startTime"]


def test_the_queues_own_switch_is_used_to_suspend():
    world = started(generation_job(scheduling={"queueName": "gpus"}))
    job = world.job()
    job["spec"]["suspend"] = False
    world.make(
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "Workload",
            "metadata": {
                "name": "job-ice",
                "namespace": "team",
                "ownerReferences": [{"uid": job["metadata"]["uid"], "kind": "Job"}],
            },
            "spec": {"active": True},
        }
    )
    world.body["spec"]["suspend"] = True
    world.settle()
    assert world.objects[("Workload", "job-ice")]["spec"]["active"] is False
    assert job["spec"]["suspend"] is False
    world.body["spec"]["suspend"] = False
    world.settle()
    assert world.objects[("Workload", "job-ice")]["spec"]["active"] is True


def test_why_the_queue_waits_is_mirrored_in_its_own_words():
    world = started(generation_job(scheduling={"queueName": "gpus"}))
    said = {"type": "QuotaReserved", "status": "False", "message": "insufficient quota for nvidia.com/gpu"}
    workload = {"metadata": {"name": "w", "namespace": "team"}, "kind": "Workload", "apiVersion": "kueue.x-k8s.io/v1"}
    world.make({**workload, "spec": {}, "status": {"conditions": [said]}})
    world.settle()
    assert world.condition("QuotaReserved") == ("False", "WaitingForQuota")
    assert world.status["scheduling"]["message"] == "insufficient quota for nvidia.com/gpu"
    world.job()["spec"]["suspend"] = False
    world.settle()
    assert world.status["scheduling"]["message"] == ""


@pytest.mark.parametrize(
    ("reason", "code", "told"),
    [
        ("PodFailurePolicy", 78, "BadConfiguration"),
        ("PodFailurePolicy", 9, "FailureRule"),
        ("MaxFailedIndexesExceeded", 65, "MaxFailedShards"),
        ("FailedIndexes", 1, "MaxFailedShards"),
    ],
)
def test_a_failed_child_fails_the_job_with_the_pods_own_words(reason, code, told):
    world = running()
    world.failed_pod("ice-a0", code, '{"event": "x"}\n{"error": "spec.sampling.scheduler: unknown"}')
    world.end_job(None, "Failed", reason=reason, failedIndexes="1", completedIndexes="0")
    world.settle()
    assert world.condition("Failed") == ("True", told)
    assert "spec.sampling.scheduler: unknown" in str(world.status["conditions"])
    assert world.status["shards"]["failedCount"] == 1


def test_a_bad_configuration_whose_pod_is_gone_is_known_by_the_job_controllers_words():
    """As kubernetes writes them in pkg/controller/job/pod_failure_policy.go."""
    for code, told in ((78, "BadConfiguration"), (7, "FailureRule")):
        world = running()
        message = (
            f"Container fetch for pod team/ice-a0-78-x failed with exit code {code} matching FailJob rule at index 1"
        )
        world.end_job(None, "Failed", reason="PodFailurePolicy", message=message)
        world.settle()
        assert world.condition("Failed") == ("True", told)


def test_what_came_out_of_an_approximate_mode_is_in_the_jobs_events():
    world = running(parallelism={"mode": "Guided", "conditioning": 2})
    world.end_job(None, "Complete", completedIndexes="0-2", succeeded=3, ready=0)
    world.settle()
    world.finalization = dataclasses.replace(DONE, note="every output is exact: it draws noise in each step")
    world.settle()
    (told,) = [event.message for event in world.events if event.reason == "AllStored"]
    assert told.endswith("the manifest is written; every output is exact: it draws noise in each step")


def test_failed_shards_within_the_budget_end_well_with_a_lower_success_policy():
    world = running(failurePolicy={"retriesPerShard": 0, "maxFailedShards": 1}, successPolicy={"minStoredPercent": 50})
    world.end_job(None, "Failed", reason="FailedIndexes", failedIndexes="1", completedIndexes="0,2")
    world.settle()
    assert world.phase == "Storing"
    world.finalization = Finalization(total=10, stored=6, bytes=5, manifest="manifest.json")
    world.settle()
    assert world.condition("Complete") == ("True", "SuccessPolicyMet")


def test_shards_that_failed_are_remembered_when_the_child_goes_before_the_recount():
    world = running(failurePolicy={"retriesPerShard": 0, "maxFailedShards": 1}, successPolicy={"minStoredPercent": 80})
    world.end_job(None, "Failed", reason="FailedIndexes", failedIndexes="1", completedIndexes="0,2")
    world.settle()
    world.remove("Job", world.jobs[0])
    world.settle()
    world.finalization = Finalization(total=10, stored=6, error="6 of 10 outputs are stored", exit_code=75)
    world.settle()
    assert world.condition("Failed") == ("True", "MaxFailedShards")


def test_too_little_in_the_store_after_all_shards_ended_well_means_outputs_were_lost():
    world = running()
    world.end_job(None, "Complete", completedIndexes="0-2")
    world.finalization = Finalization(total=10, stored=9, error="9 of 10 outputs are stored", exit_code=75)
    world.settle()
    assert world.condition("Failed") == ("True", "OutputsLost")


def test_a_store_that_is_down_at_the_end_is_waited_for():
    world = running()
    world.end_job(None, "Complete", completedIndexes="0-2")
    world.finalization = Finalization(error="the store does not answer", exit_code=75)
    plan = world.settle()
    assert world.condition("OutputsStored") == ("False", "UploadFailed")
    assert plan.asks
    world.finalization = DONE
    world.settle()
    assert world.phase == "Complete"


def complete():
    world = running()
    world.end_job(None, "Complete", completedIndexes="0-2")
    world.finalization = DONE
    world.settle()
    return world


def test_a_finished_job_whose_children_vanish_makes_nothing_again():
    """Trainer #2981, #3737."""
    world = complete()
    world.objects.clear()
    world.inspection = world.finalization = None
    before = world.writes
    world.later(1000)
    plan = world.step()
    assert world.writes == before
    assert (plan.asks, plan.apply, plan.status) == ((), (), None)


def test_how_the_last_pods_of_a_failed_job_end_is_counted_and_only_that():
    """The job fails before the Job controller has counted the pod that it fails by."""
    world = running(failurePolicy={"retriesPerShard": 0})
    world.end_job(None, "FailureTarget", reason="PodFailurePolicy")
    world.job()["status"] |= {"active": 2, "ready": 1}
    world.settle()
    assert world.phase == "Failed"
    assert (world.status["jobs"][0]["failed"], world.status["workers"]["active"]) == (0, 2)
    said = world.status["conditions"]
    world.end_job(None, "Failed", reason="PodFailurePolicy", ready=0, failed=3)
    world.later(1)
    plan = world.settle()
    assert (world.status["jobs"][0]["failed"], world.status["workers"]["active"]) == (3, 0)
    assert world.status["workers"]["ready"] == 0
    assert (world.status["conditions"], plan.apply, plan.asks, plan.events) == (said, (), (), ())
    assert world.step().status is None


def test_the_ttl_is_counted_on_the_job():
    world = running(ttlSecondsAfterFinished=60)
    world.end_job(None, "Complete", completedIndexes="0-2")
    world.finalization = DONE
    world.settle()
    world.later(59)
    assert world.plan().requeue_after == pytest.approx(1)
    world.later(1)
    world.step()
    assert world.gone


def test_a_child_that_somebody_deleted_is_made_again_and_what_was_counted_stays():
    world = running()
    world.job()["status"] = {"active": 1, "ready": 1, "completedIndexes": "0"}
    world.settle()
    assert world.status["progress"]["stored"] == 4
    world.objects.clear()
    world.settle()
    assert world.jobs == ["ice-a0"]
    assert world.status["progress"]["stored"] == 4


def test_a_child_on_its_way_out_is_waited_for():
    world = running()
    world.job()["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    plan = world.step()
    assert plan.apply == ()
    assert plan.requeue_after is not None


def test_a_stranger_of_the_same_name_is_waited_for():
    """Volcano #1241."""
    world = World(generation_job(), strangers=("ice-a0",))
    world.inspection = Inspection(pin=pin())
    plan = world.settle()
    assert not world.objects
    assert plan.requeue_after is not None
    assert "earlier job" in str(world.status["conditions"])
    world.strangers = ()
    world.settle()
    assert world.jobs == ["ice-a0"]


def test_the_deadlines_fail_the_job_and_stop_its_pods():
    world = running(activeDeadlineSeconds=100)
    world.later(99)
    assert world.plan().requeue_after == pytest.approx(1)
    world.later(1)
    world.settle()
    assert world.condition("Failed") == ("True", "DeadlineExceeded")
    assert world.job()["spec"]["suspend"] is True


def unscheduled(message: str) -> dict:
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}


def waits(container: str, message: str) -> dict:
    waiting = {"reason": "CreateContainerConfigError", "message": message}
    return {"name": container, "state": {"waiting": waiting}}


def test_a_job_that_never_starts_fails_with_the_reason():
    world = started(generation_job(preRunningDeadlineSeconds=30))
    waiting = {"name": "compute", "image": "nope:1", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    world.pod("ice-a0", phase="Pending", containerStatuses=[waiting])
    world.settle()
    assert world.condition("PodsReady") == ("False", "ImagePull")
    world.later(31)
    world.settle()
    assert world.condition("Failed") == ("True", "PreRunningDeadlineExceeded")
    assert "nope:1" in str(world.status["conditions"])


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (
            {"conditions": [unscheduled("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")]},
            "Unschedulable",
            "0 of 1 pods are ready; a pod can't be placed: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
        ),
        (
            {"initContainerStatuses": [waits("fetch", 'secret "frazil-default-read" not found')]},
            "ContainerNotMade",
            '0 of 1 pods are ready; a pod can\'t start: fetch: secret "frazil-default-read" not found; the chart gives it '
            "to the namespaces of its value `tenants`: is this one there?",
        ),
        (
            {"containerStatuses": [waits("compute", 'secret "my-token" not found')]},
            "ContainerNotMade",
            '0 of 1 pods are ready; a pod can\'t start: compute: secret "my-token" not found',
        ),
    ],
    ids=["no room", "no tenant", "a secret of its own"],
)
def test_what_keeps_a_pod_from_starting_is_a_reason_of_its_own_and_an_event(status, reason, words):
    world = started(generation_job())
    world.pod("ice-a0", phase="Pending", **status)
    world.settle()
    assert world.condition("PodsReady") == ("False", reason)
    assert next(one["message"] for one in world.status["conditions"] if one["type"] == "PodsReady") == words
    assert [event.type for event in world.events if event.reason == reason] == ["Warning"]


def test_waiting_in_a_queue_does_not_count_for_the_pre_running_deadline():
    world = started(generation_job(preRunningDeadlineSeconds=30, scheduling={"queueName": "gpus"}))
    world.later(1000)
    world.settle()
    assert world.condition("Failed") is None


def test_progress_is_exact_for_finished_shards_and_never_goes_back():
    world = running(imagesPerPrompt=2)
    at_work = {"state": "Running", "images_per_second": 2.0, "updated_at": NOW.timestamp()}
    world.progress = (ShardProgress(shard=0, total=8, generated=5, stored=3, **at_work),)
    world.settle()
    assert world.status["progress"]["summary"] == "3/20"
    assert world.status["progress"]["estimatedRemainingSeconds"] == 8
    world.progress = ()  # Redis was emptied
    world.settle()
    assert world.status["progress"]["summary"] == "3/20"
    world.job()["status"]["completedIndexes"] = "0,2"
    world.settle()
    assert world.status["progress"]["stored"] == (4 + 2) * 2
    assert world.status["shards"]["completed"] == "0,2"


def test_progress_of_what_the_job_does_not_have_is_left_out():
    world = running()
    world.progress = (TrainingProgress(step=3), ShardProgress(shard=3, total=4, generated=4))
    world.settle()
    assert world.status["progress"]["generated"] == 0


@pytest.mark.parametrize("rate", [1e-320, float("nan"), float("inf")])
def test_a_rate_that_says_nothing_of_the_end_does_no_harm(rate):
    world = running()
    at_work = {"state": "Running", "images_per_second": rate, "updated_at": NOW.timestamp()}
    world.progress = (ShardProgress(shard=0, total=4, generated=1, **at_work),)
    world.settle()
    assert world.status["progress"]["generated"] == 1
    assert world.status["progress"].get("estimatedRemainingSeconds", 0) == 0


def test_a_config_map_that_somebody_deleted_is_made_again_once_a_pod_waits_for_it():
    world = running()
    before = world.writes
    made = world.objects.pop(("ConfigMap", "ice-a0"))
    world.idle_pod("ice-a0")
    world.later(59)
    plan = world.step()
    assert plan.ensure == (), "a pod may take its time"
    assert plan.requeue_after == pytest.approx(1)
    world.later(1)
    world.settle()
    assert world.objects[("ConfigMap", "ice-a0")]["data"] == made["data"]
    assert world.writes == before + 1
    for _ in range(3):
        world.later(300)
        world.step()
    assert world.writes == before + 1, "it's there: the pod waits for something else"


@pytest.mark.parametrize(
    "status",
    [
        {"initContainerStatuses": [{"name": "fetch", "state": {"running": {}}}]},
        {"initContainerStatuses": [{"name": "fetch", "state": {"terminated": {"exitCode": 0}}}]},
        {"phase": "Failed"},
        {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]},
    ],
    ids=["begun", "fetched", "failed", "not placed"],
)
def test_nothing_is_looked_for_while_no_pod_waits_on_its_node(status):
    world = running()
    world.idle_pod("ice-a0", **status)
    world.later(3600)
    assert world.plan().ensure == ()


@pytest.mark.parametrize("count", [10, 1_000_000])
def test_the_status_is_of_constant_size(count):
    world = World(generation_job(prompts={"uri": "s3://b/p.jsonl", "perShard": 1}))
    world.inspection = Inspection(pin=pin(count, 1))
    world.settle()
    odd = ",".join(str(index) for index in range(0, min(count, 200_000), 2))
    world.job()["status"] = {"active": 1, "ready": 1, "completedIndexes": odd}
    world.settle()
    assert len(str(world.status)) < 12_000
    GenerationJobStatus.model_validate(world.status)


def test_a_pod_of_a_lost_node_is_given_up_after_the_stated_time():
    """Its Job would wait for it for ever: deleted by force it would still lack an end (kubernetes: podReplacementPolicy)."""
    world = running()
    pod = world.pod("ice-a0", phase="Running")
    pod["metadata"] |= {"deletionTimestamp": "2026-11-23T10:00:00Z", "deletionGracePeriodSeconds": 30}
    assert world.plan().requeue_after == pytest.approx(61)
    world.later(59)
    assert not world.plan().patch
    world.later(1)
    (patch,) = world.plan().patch
    assert patch.status
    assert patch.body["status"]["phase"] == "Failed"
    assert [one["type"] for one in patch.body["status"]["conditions"]] == ["DisruptionTarget"]
    assert not world.plan().delete, "the status comes first: a deletion would change the version that it's written at"
    pod["status"] |= patch.body["status"]
    (deletion,) = world.plan().delete
    assert (deletion.kind, deletion.grace_seconds) == ("Pod", 0)
    pod["metadata"]["deletionGracePeriodSeconds"] = 0
    assert not world.plan().delete


def test_another_controllers_job_is_left_alone():
    world = World(generation_job(managedBy="kueue.x-k8s.io/multikueue"))
    plan = world.step()
    assert plan.status is None
    assert (plan.asks, plan.apply) == ((), ())


def test_retain_has_no_finalizer_and_delete_removes_outputs_after_the_pods_have_ended():
    assert World(generation_job()).plan().finalizers is None
    world = started(generation_job(output={"whenDeleted": "Delete"}))
    assert world.body["metadata"]["finalizers"] == ["frazil.dev/outputs"]
    pod = world.pod("ice-a0", phase="Running")
    world.body["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z"
    plan = world.step()
    assert world.jobs == []
    assert plan.asks == ()
    pod["status"]["phase"] = "Succeeded"
    (ask,) = world.step().asks
    assert ask.payload == {
        "namespace": "team",
        "destination": "default",
        "prefix": "team/ice-0a1b2c3d",
        "uid": world.body["metadata"]["uid"],
    }
    from frazil_operator.reconcile.plan import Removal

    world.removal = Removal()
    world.step()
    assert world.body["metadata"]["finalizers"] == []


def test_the_order_of_what_is_heard_does_not_change_the_end():
    """dask #968: a late handler wrote an old phase over a new one."""
    one, two = running(), running()
    for world, order in ((one, "ab"), (two, "ba")):
        for step in order:
            if step == "a":
                world.job()["status"]["completedIndexes"] = "0-1"
            else:
                world.progress = (
                    ShardProgress(shard=2, total=2, generated=1, stored=1, state="Running", updated_at=0),
                )
            world.settle()
    assert one.status == two.status


def test_nothing_is_made_in_a_namespace_that_ends_and_what_is_there_is_let_go():
    world = running()
    world.namespace_ends = True
    plan = world.plan()
    assert [(one.kind, one.name) for one in plan.delete] == [("Job", "ice-a0")]
    assert plan.apply == plan.ensure == plan.patch == plan.asks == ()
    world.settle()
    assert world.made == ["ice-a0"]
