"""`frazil watch` before a real API server: what is said while a job gets on, and how it ends."""

import json
import signal
import time

from frazil_command import wait_until


def condition(kind, status, reason, message=""):
    at = "2026-11-24T10:00:00Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


def workers(ready):
    return {"desired": 2, "active": 2, "ready": ready, "selector": "a=b"}


def progress(stored):
    return {"total": 40, "generated": stored, "stored": stored, "percent": 0, "summary": f"{stored}/40"}


def until_said(frazil, process, words):
    wait_until(lambda: words in said(frazil, process), f"{words!r} in what watch says", seconds=60)


def said(frazil, process):
    return frazil.files[process.pid][0].read_text()


def test_a_job_is_told_from_its_trouble_to_its_end(plane, namespace, person):
    plane.job(namespace, "ice")
    watching = person.start("watch", "ice", "-n", namespace)
    until_said(person, watching, "ice: New")
    pull = condition("PodsReady", "False", "ImagePull", "ghcr.io/none: not found")
    plane.status(namespace, "ice", phase="Starting", conditions=[pull], workers=workers(0))
    until_said(person, watching, "ice: ! ImagePull: ghcr.io/none: not found")
    plane.status(namespace, "ice", phase="Running", conditions=[condition("PodsReady", "True", "AllReady")])
    until_said(person, watching, "ice: Running")
    plane.status(namespace, "ice", progress=progress(10))
    until_said(person, watching, "ice: 10 of 40 stored")
    complete = condition("Complete", "True", "Succeeded", "every output is stored")
    uri = "s3://frazil/results/x/"
    plane.status(namespace, "ice", phase="Complete", conditions=[complete], progress=progress(40), outputs={"uri": uri})
    ended = person.ended(watching, timeout=60)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[-4:] == [
        "ice: Complete",
        "ice: 40 of 40 stored",
        "ice: results: s3://frazil/results/x/",
        f"ice: fetch them: frazil fetch ice -n {namespace}",
    ]
    assert sum("ImagePull" in line for line in lines) == 1


def test_warnings_of_the_jobs_children_are_told_and_those_of_others_not(plane, namespace, person):
    plane.job(namespace, "ice")
    watching = person.start("watch", "ice", "-n", namespace)
    until_said(person, watching, "ice: New")
    for about, message in (("ice-a0", "exceeded quota: gpus"), ("else-a0", "nobody's business")):
        plane.kubectl.kubectl(
            "create",
            "-f",
            "-",
            stdin=json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"generateName": "e-", "namespace": namespace},
                    "involvedObject": {"kind": "Job", "name": about, "namespace": namespace},
                    "type": "Warning",
                    "reason": "FailedCreate",
                    "message": message,
                    "lastTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                }
            ),
        )
    until_said(person, watching, "ice: FailedCreate (Job/ice-a0): exceeded quota: gpus")
    plane.status(namespace, "ice", phase="Complete")
    assert "nobody's business" not in person.ended(watching, timeout=60).stdout


def test_a_failed_job_is_exit_code_1_and_the_reason(plane, namespace, person):
    plane.job(namespace, "ice")
    why = condition("Failed", "True", "MaxFailedShards", "1 shard has failed, 0 may: out of memory")
    uri = "s3://frazil/results/x/"
    plane.status(namespace, "ice", phase="Failed", conditions=[why], progress=progress(0), outputs={"uri": uri})
    ended = person("watch", "ice", "-n", namespace)
    assert ended.returncode == 1
    assert "ice: ! MaxFailedShards: 1 shard has failed, 0 may: out of memory" in ended.stdout
    assert "fetch" not in ended.stdout, "it stored nothing"
    plane.status(namespace, "ice", progress=progress(3))
    ended = person("watch", "ice", "-n", namespace)
    assert f"ice: fetch them: frazil fetch ice -n {namespace} --partial" in ended.stdout


def test_a_deleted_job_is_exit_code_1(plane, namespace, person):
    plane.job(namespace, "ice")
    watching = person.start("watch", "ice", "-n", namespace)
    until_said(person, watching, "ice: New")
    plane.kubectl.kubectl("delete", "generationjob", "ice", "-n", namespace)
    ended = person.ended(watching, timeout=60)
    assert ended.returncode == 1
    assert "the job was deleted" in ended.stderr


def test_a_job_made_again_under_its_name_is_another_one(plane, namespace, person):
    plane.job(namespace, "ice")
    watching = person.start("watch", "ice", "-n", namespace)
    until_said(person, watching, "ice: New")
    plane.kubectl.kubectl("delete", "generationjob", "ice", "-n", namespace)
    plane.job(namespace, "ice")
    plane.status(namespace, "ice", phase="Complete")
    assert person.ended(watching, timeout=60).returncode == 1


def test_a_namespace_ends_when_none_is_at_work_and_fails_with_one_that_failed_meanwhile(plane, namespace, person):
    for name in ("ice", "snow", "old"):
        plane.job(namespace, name)
    why = condition("Failed", "True", "MaxFailedShards", "out of memory")
    uri = "s3://frazil/results/x/"
    plane.status(namespace, "old", phase="Failed", conditions=[why], progress=progress(3), outputs={"uri": uri})
    watching = person.start("watch", "-n", namespace)
    until_said(person, watching, "snow: New")
    plane.status(namespace, "ice", phase="Complete")
    until_said(person, watching, "ice: Complete")
    plane.status(namespace, "snow", phase="Complete")
    ended = person.ended(watching, timeout=60)
    assert ended.returncode == 0  # "old" had failed before
    assert [line for line in ended.stdout.splitlines() if line.startswith("old")] == ["old: Failed"]
    plane.job(namespace, "sleet")
    again = person.start("watch", "-n", namespace)
    until_said(person, again, "sleet: New")
    plane.status(namespace, "sleet", phase="Failed")
    assert person.ended(again, timeout=60).returncode == 1


def test_an_empty_namespace_is_said_so(namespace, person):
    ended = person("watch", "-n", namespace)
    assert ended.returncode == 0
    assert f"there are no jobs in the namespace '{namespace}'" in ended.stderr


def test_json_is_a_line_a_change(plane, namespace, person):
    plane.job(namespace, "ice")
    watching = person.start("watch", "ice", "-n", namespace, "--json")
    until_said(person, watching, '"phase": "New"')
    for stored in (10, 20):
        plane.status(namespace, "ice", phase="Running", progress=progress(stored))
        until_said(person, watching, f'"stored": {stored}')
    plane.status(namespace, "ice", phase="Complete")
    lines = [json.loads(line) for line in person.ended(watching, timeout=60).stdout.splitlines()]
    assert [(line["phase"], line["stored"]) for line in lines] == [
        ("New", 0),
        ("Running", 10),
        ("Running", 20),
        ("Complete", 20),
    ]
    assert {line["name"] for line in lines} == {"ice"}


def test_it_goes_on_when_the_api_server_was_away(plane, namespace, frazil):
    gate = plane.gate()
    frazil.env = {"KUBECONFIG": str(gate.kubeconfig)}
    plane.job(namespace, "ice")
    watching = frazil.start("watch", "ice", "-n", namespace)
    until_said(frazil, watching, "ice: New")
    gate.shut()
    until_said(frazil, watching, "! the cluster doesn't answer")
    plane.status(namespace, "ice", phase="Running")
    time.sleep(1.5)
    gate.open()
    until_said(frazil, watching, "ice: Running")
    plane.status(namespace, "ice", phase="Complete")
    assert frazil.ended(watching, timeout=60).returncode == 0


def test_out_of_time_and_stopped_are_75_and_the_job_goes_on(plane, namespace, person):
    plane.job(namespace, "ice")
    ended = person("watch", "ice", "-n", namespace, "--timeout", "2")
    assert ended.returncode == 75
    assert "out of time: the jobs go on" in ended.stderr
    watching = person.start("watch", "ice", "-n", namespace)
    until_said(person, watching, "ice: New")
    watching.send_signal(signal.SIGINT)
    ended = person.ended(watching, timeout=60)
    assert ended.returncode == 75
    assert "the jobs go on" in ended.stderr


def test_a_terminal_gets_a_bar_and_the_end_stays_on_it(plane, namespace):
    from rich.console import Console

    from frazil_cli.cluster.screen import Picture
    from frazil_cli.cluster.snapshot import snapshot

    console = Console(force_terminal=True, width=110, height=30, record=True, legacy_windows=False)
    plane.job(namespace, "ice")
    plane.status(
        namespace,
        "ice",
        phase="Running",
        conditions=[condition("PodsReady", "False", "WaitingForPods", "1 of 2 ready")],
        progress={**progress(10), "imagesPerSecond": "2.5", "estimatedRemainingSeconds": 12},
        workers=workers(1),
    )
    job = plane.kubectl.get("generationjob", "ice", namespace=namespace)
    with Picture(console) as picture:
        picture.show([snapshot(job)], silence="the cluster doesn't answer")
    text = console.export_text()
    for words in ("ice", "Running", "10/40", "2.5 images/s", "12 s left", "1 of 2 ready", "! the cluster doesn't"):
        assert words in text
