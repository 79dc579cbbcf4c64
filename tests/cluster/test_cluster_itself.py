"""The test cluster itself: brought up twice, mended, its logs shown and kept, and somebody else's only used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from testcluster import binaries
from testcluster.cluster import Cluster, NotOurs
from testcluster.frazil import CHECKOUT

KILLED = ("etcd", "kube-scheduler", "kubelet-0")


def processes(cluster: Cluster) -> dict[str, int | None]:
    return {name: cluster.processes.pid(name) for name in cluster.processes.names()}


def test_up_leaves_alone_what_runs_and_starts_what_was_killed(own_cluster, installation):
    cluster = own_cluster
    before = processes(cluster)
    assert set(KILLED) < set(before)
    assert all(before.values())
    cluster.up(gpus=4, checkout=CHECKOUT)
    assert processes(cluster) == before
    for name in KILLED:
        os.kill(before[name], signal.SIGKILL)
    cluster.until("they are dead", lambda: not any(cluster.processes.running(name) for name in KILLED))
    cluster.up(gpus=4, checkout=CHECKOUT)
    after = processes(cluster)
    assert all(after.values())
    assert {name for name in after if after[name] != before[name]} == set(KILLED)
    cluster.kubectl("delete", "pod", "-n", "frazil-system", "-l", "app.kubernetes.io/component=operator")
    where = ["deployment/frazil-operator", "-n", "frazil-system"]
    cluster.kubectl("rollout", "status", *where, "--timeout=60s", seconds=70)  # stored, placed and started again


FAILING = """
from pathlib import Path

def write(words):
    with open("{log}", "a") as log:
        log.write(words + "\\n")

def test_fails():
    write("while it failed")
    raise AssertionError

def test_passes():
    write("while it passed")
"""


def test_a_test_that_fails_shows_what_the_cluster_wrote_since_it_began(tmp_path):
    log = tmp_path / "frazil-cluster" / "logs" / "etcd.log"
    log.parent.mkdir(parents=True)
    log.write_text("before the test\n")
    (tmp_path / "test_one.py").write_text(FAILING.replace("{log}", str(log)))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "testcluster.shown", "-p", "no:cacheprovider", "test_one.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(CHECKOUT / "tests" / "cluster")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "1 failed, 1 passed" in ended.stdout, ended.stdout + ended.stderr
    assert "the last lines of etcd" in ended.stdout
    assert "while it failed" in ended.stdout
    assert "before the test" not in ended.stdout
    assert "while it passed" not in ended.stdout


def test_logs_outlive_their_cluster_until_the_next_has_ended(tmp_path):
    cluster = Cluster(tmp_path / "cluster")
    for words in ("of the first", "of the second"):
        log = cluster.processes.log("etcd")
        log.parent.mkdir(parents=True)
        log.write_text(words)
        cluster.keep_logs()
        assert (cluster.kept_logs / "etcd.log").read_text() == words
        assert not log.exists()
        cluster.keep_logs()  # `down` of what is down
        assert (cluster.kept_logs / "etcd.log").read_text() == words


@pytest.fixture
def theirs(tmp_path, monkeypatch) -> Cluster:
    """A cluster that is only used, on a machine that built no programs."""
    monkeypatch.setattr(binaries, "folder", lambda: tmp_path / "nothing")
    return Cluster(existing=tmp_path / "kubeconfig")


def test_somebody_elses_cluster_is_used_by_the_programs_of_the_path(theirs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(binaries.CannotBuild, match="there is no kubectl on the PATH"):
        theirs.kubectl("version")
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$@"\n')
    kubectl.chmod(0o755)
    assert theirs.kubectl("version").stdout == f"--kubeconfig {tmp_path / 'kubeconfig'} version\n"


def test_nothing_of_somebody_elses_cluster_is_changed(theirs):
    for change in (lambda: theirs.add_node(1), lambda: theirs.gpus(1), theirs.restart_apiserver):
        with pytest.raises(NotOurs, match="is somebody's"):
            change()
