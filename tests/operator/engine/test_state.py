"""What the operator knows: its own writes count until the watch has caught up."""

from __future__ import annotations

from frazil_operator.engine.handlers import slim
from frazil_operator.engine.state import State
from frazil_operator.reconcile.plan import Key

KEY = Key("GenerationJob", "team", "ice")
LABELS = {"frazil.dev/job-uid": "u1", "frazil.dev/kind": "GenerationJob", "frazil.dev/job-name": "ice"}


def job(version: int, uid: str = "u1") -> dict:
    meta = {"name": "ice", "namespace": "team", "uid": uid, "resourceVersion": str(version)}
    return {"kind": "GenerationJob", "metadata": meta}


def child(version: int, *, name: str = "ice-a0", uid: str = "c1", labels=LABELS, kind: str = "Job") -> dict:
    meta = {"name": name, "namespace": "team", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"kind": kind, "metadata": meta}


def test_an_answer_newer_than_the_watch_is_what_counts_until_the_watch_has_it():
    state = State()
    state.see_job(KEY, job(5), deleted=False)
    state.wrote(job(7))
    state.see_job(KEY, job(6), deleted=False)
    assert state.job(KEY)["metadata"]["resourceVersion"] == "7"
    state.see_job(KEY, job(9), deleted=False)
    assert state.job(KEY)["metadata"]["resourceVersion"] == "9"


def test_an_answer_about_an_object_that_is_another_by_now_does_not_count():
    state = State()
    state.wrote(job(99))
    state.see_job(KEY, job(5, uid="u2"), deleted=False)
    assert state.job(KEY)["metadata"]["uid"] == "u2"


def test_a_child_just_made_is_there_before_the_watch_tells_of_it_and_not_for_ever():
    now = [0.0]
    state = State(clock=lambda: now[0])
    state.see_job(KEY, job(1), deleted=False)
    state.wrote(child(3))
    assert [one["metadata"]["name"] for one in state.children("u1")["job"]] == ["ice-a0"]
    now[0] += 31
    assert state.children("u1") == {}, "the watch had time to tell: somebody deleted it"


def test_a_child_that_was_deleted_just_after_it_was_made_is_gone():
    state = State()
    state.see_job(KEY, job(1), deleted=False)
    state.wrote(child(3))
    state.see_child("Job", child(3), deleted=False)
    state.see_child("Job", child(4), deleted=True)
    assert state.children("u1") == {}


def test_the_end_of_an_earlier_child_of_the_name_does_not_hide_the_one_just_made():
    state = State()
    state.see_job(KEY, job(1), deleted=False)
    state.wrote(child(9, uid="c2"))
    state.see_child("Job", child(4), deleted=True)
    assert [one["metadata"]["uid"] for one in state.children("u1")["job"]] == ["c2"]


def test_a_deleted_job_is_gone_and_so_is_what_was_written_of_it():
    state = State()
    state.see_job(KEY, job(1), deleted=False)
    state.wrote(child(3))
    state.see_job(KEY, job(1), deleted=True)
    assert state.job(KEY) is None
    assert state.children("u1") == {}
    assert state.key_of("u1") is None


def test_children_of_an_earlier_job_of_the_name_are_strangers():
    state = State()
    state.see_job(KEY, job(9, uid="u2"), deleted=False)
    assert state.see_child("Job", child(3), deleted=False) == KEY
    assert state.strangers(KEY, "u2") == ("ice-a0",)
    assert state.see_child("Job", child(3), deleted=True) == KEY
    assert state.strangers(KEY, "u2") == ()


def test_a_workload_is_found_through_its_job():
    state = State()
    state.see_job(KEY, job(1), deleted=False)
    state.see_child("Job", child(2), deleted=False)
    workload = child(4, name="w", uid="w1", labels={"kueue.x-k8s.io/job-uid": "c1"}, kind="Workload")
    assert state.see_child("Workload", workload, deleted=False) == KEY
    assert [one["metadata"]["name"] for one in state.children("u1")["workload"]] == ["w"]


def test_what_nobody_reads_is_not_kept():
    body = {"metadata": {"name": "p", "managedFields": [1]}, "spec": {"nodeName": "n", "containers": [1]}, "status": {}}
    kept = slim(body, spec=frozenset({"nodeName"}))
    assert kept == {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {}}
    assert slim(body)["spec"] == body["spec"]
    assert "managedFields" in body["metadata"], "the watch's own object is left as it is"
