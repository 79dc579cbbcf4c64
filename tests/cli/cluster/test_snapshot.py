"""What is said of a job: from its object and Events alone."""

import pytest

from frazil_cli.cluster.screen import counts
from frazil_cli.cluster.snapshot import as_line, concerns, snapshot
from frazil_jobs.api import conditions as c

UID = "11111111-2222-3333-4444-555555555555"
CREATED = "2026-11-24T10:00:00Z"


def job(name="ice", kind="GenerationJob", **status):
    meta = {"name": name, "namespace": "team-a", "uid": UID, "creationTimestamp": CREATED}
    return {"apiVersion": "frazil.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": {}, "status": status}


def condition(kind, status, reason, message=""):
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": CREATED}


def event(name, *, at="2026-11-24T10:05:00Z", kind="Pod", type_="Warning", reason="Failed", message="why", **more):
    about = {"kind": kind, "name": name, **more}
    return {
        "metadata": {"uid": f"{name}{at}{reason}{message}", "creationTimestamp": at},
        "involvedObject": about,
        "type": type_,
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
    }


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([], []),
        ([(c.PROMPTS_INSPECTED, "True", c.INSPECTED)], []),
        ([(c.PROMPTS_INSPECTED, "False", c.INSPECTING)], [(c.INSPECTING, False)]),
        ([(c.PROMPTS_INSPECTED, "False", c.PROMPTS_UNREACHABLE)], [(c.PROMPTS_UNREACHABLE, True)]),
        ([(c.QUOTA_RESERVED, "False", c.WAITING_FOR_QUOTA)], [(c.WAITING_FOR_QUOTA, False)]),
        ([(c.QUOTA_RESERVED, "False", c.PREEMPTED)], [(c.PREEMPTED, True)]),
        ([(c.GANG_SCHEDULED, "True", c.NOT_REQUIRED)], []),
        ([(c.GANG_SCHEDULED, "False", c.UNSCHEDULABLE)], [(c.UNSCHEDULABLE, True)]),
        ([(c.GANG_SCHEDULED, "False", c.PROVIDER_UNAVAILABLE)], [(c.PROVIDER_UNAVAILABLE, True)]),
        ([(c.PODS_READY, "False", c.WAITING_FOR_PODS)], [(c.WAITING_FOR_PODS, False)]),
        ([(c.PODS_READY, "False", c.IMAGE_PULL)], [(c.IMAGE_PULL, True)]),
        ([(c.PODS_READY, "False", c.CONTAINER_NOT_MADE)], [(c.CONTAINER_NOT_MADE, True)]),
        ([(c.PODS_READY, "False", c.UNSCHEDULABLE)], [(c.UNSCHEDULABLE, True)]),
        ([(c.RESTARTING, "True", c.WORKER_FAILED)], [(c.WORKER_FAILED, True)]),
        ([(c.RESTARTING, "False", c.RESTARTED)], []),
        ([(c.SUSPENDED, "True", c.USER_REQUESTED)], [(c.USER_REQUESTED, False)]),
        (
            [(c.PODS_READY, "False", c.WAITING_FOR_PODS), (c.SUSPENDED, "True", c.USER_REQUESTED)],
            [(c.USER_REQUESTED, False)],
        ),
        ([(c.SUSPENDED, "False", c.RESUMED)], []),
        ([(c.OUTPUTS_STORED, "False", c.UPLOADING)], []),
        ([(c.OUTPUTS_STORED, "False", c.FINALIZING)], [(c.FINALIZING, False)]),
        ([(c.OUTPUTS_STORED, "False", c.UPLOAD_FAILED)], [(c.UPLOAD_FAILED, True)]),
        ([(c.CHECKPOINT_STORED, "False", c.NO_CHECKPOINT)], []),
        ([(c.COMPLETE, "True", c.SUCCEEDED)], []),
        ([(c.FAILED, "True", c.NO_PROGRESS)], [(c.NO_PROGRESS, True)]),
    ],
)
def test_conditions_that_are_not_as_they_will_be_are_noted_and_only_troubles_as_such(conditions, said):
    found = snapshot(job(conditions=[condition(*one) for one in conditions]))
    assert [(note.reason, note.trouble) for note in found.notes] == said


def test_every_trouble_is_a_reason_that_some_condition_can_have():
    from frazil_cli.cluster.snapshot import _TROUBLE

    assert {reason for reasons in c.REASONS.values() for reason in reasons} >= _TROUBLE


@pytest.mark.parametrize(
    ("happened", "is_ours"),
    [
        (event("ice-a0"), True),
        (event("ice-a0-1-x7k2p"), True),
        (event("ice-a12-3"), True),
        (event("ice", kind="GenerationJob", uid=UID), True),
        (event("ice", kind="GenerationJob", uid="another"), False),
        (event("ice", kind="Pod"), False),
        (event("ice-b0"), False),
        (event("iced-a0"), False),
        (event("nice-a0"), False),
        (event("ice-a0", at="2026-11-24T09:59:00Z"), False),
        (event("ice-a0", at="2026-11-24T10:00:00.5Z"), True),
    ],
)
def test_events_of_the_job_and_its_children_are_told_and_no_others(happened, is_ours):
    assert concerns(happened, job()) is is_ours


def test_the_newest_events_are_told_and_what_repeats_itself_once():
    events = [event("ice-a0", at=f"2026-11-24T10:0{minute}:00Z", message=f"attempt {minute}") for minute in range(1, 6)]
    events += [event("ice-a0", at="2026-11-24T10:00:30Z", reason="Other"), event("else")]
    found = snapshot(job(), reversed(events)).events
    assert [(one.reason, one.message, one.count) for one in found] == [("Other", "why", 1), ("Failed", "attempt 5", 5)]


def test_what_pods_do_as_they_should_is_no_news():
    events = [
        event("ice-a0-0", type_="Normal", reason="Killing"),
        event("ice-a0", kind="Job", type_="Normal", reason="Completed"),
    ]
    assert [one.reason for one in snapshot(job(), events).events] == ["Completed"]


def test_an_object_of_another_version_is_told_as_far_as_it_is_understood():
    found = snapshot(job(phase="Melting", progress={"total": 4, "imagesPerSecond": "fast"}, workers=None, shards="all"))
    assert (found.phase, found.total, found.per_second, found.ready, found.finished) == ("Melting", 4, None, 0, False)


def test_a_job_without_status_is_new():
    found = snapshot({key: value for key, value in job().items() if key != "status"})
    assert (found.phase, found.total, found.notes) == ("New", 0, ())


def test_counts_in_words():
    progress = {
        "total": 200,
        "generated": 115,
        "stored": 112,
        "imagesPerSecond": "1.6",
        "estimatedRemainingSeconds": 64,
    }
    shards = {"total": 13, "completedCount": 3, "failed": "7"}
    found = snapshot(job(phase="Running", progress=progress, shards=shards))
    assert counts(found) == ("112 of 200 stored (115 made) · 3 of 13 shards, 7 failed · 1.6 images/s · 1:04 min left")


def test_a_training_job_is_told_in_steps():
    progress = {"totalSteps": 100, "step": 42, "throughput": "5.1", "loss": "0.23"}
    found = snapshot(job(kind="TrainingJob", phase="Running", progress=progress))
    assert counts(found) == "step 42 of 100 · 5.1 samples/s"
    assert (as_line(found)["step"], as_line(found)["loss"]) == (42, "0.23")
    assert "stored" not in as_line(found)
