"""The trainer as processes: `fetch`, launchers of two pods, an uploader. A rank that is killed takes the others down, and
the next attempt ends with the very weights of a run that nothing disturbed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_models
import yaml
from servers import free_port

from frazil_jobs.inputs.checkpoints import find
from frazil_jobs.outputs.spool import Spool
from frazil_jobs.outputs.uploader import Uploader
from frazil_jobs.stores import StoreConfig, open_store

PREFIX = "default/tiny-0a1b2c3d"
SECONDS = 400
STEPS = 120
"""Many more than are made until a signal has arrived."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class World:
    """Pods as processes, one a node of one rank; each has a spool of its own, and the uploader looks after all."""

    def __init__(self, folder: Path, **spec) -> None:
        self.folder = folder
        self.pods: list[subprocess.Popen] = []
        self.store = open_store(StoreConfig(uri=f"file://{folder}/store"))
        tiny_models.llama(folder / "model")
        (folder / "data").mkdir()
        (folder / "data" / "train.txt").write_text(tiny_models.CORPUS)
        job = tiny_models.job(
            "CausalLM",
            **{
                "dataset": {"uri": "data", "sequenceLength": 16},
                "steps": STEPS,
                "parallelism": {"pipeline": 2, "microbatches": 2},
                "workers": {"nodesPerReplica": 2, "gpusPerNode": 1},
                "checkpoint": {"everySteps": 20},
                "evaluation": {"everySteps": 50, "batches": 1},
                **spec,
            },
        )
        (folder / "job.yaml").write_text(yaml.safe_dump(job.document()))

    def spool(self, attempt: int, node: int) -> Path:
        return self.folder / f"spool-{attempt}-{node}"

    def start(self, attempt: int) -> list[subprocess.Popen]:
        """Fetch for both pods, then start both launchers."""
        port = free_port()
        started = []
        for node in range(2):
            env = {
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "FRAZIL_JOB_FILE": str(self.folder / "job.yaml"),
                "FRAZIL_SPOOL": str(self.spool(attempt, node)),
                "FRAZIL_PREFIX": PREFIX,
                "FRAZIL_JOB_UID": "0a1b2c3d-0000-4000-8000-000000000000",
                "FRAZIL_ATTEMPT": str(attempt),
                "FRAZIL_STORE": f"file://{self.folder}/store",
            }
            subprocess.run([sys.executable, "-m", "frazil_jobs.inputs.fetch"], env=env, check=True, timeout=SECONDS)
            env = os.environ | {
                "FRAZIL_SPOOL": str(self.spool(attempt, node)),
                "FRAZIL_NODES": "2",
                "FRAZIL_NODE_RANK": str(node),
                "FRAZIL_RENDEZVOUS": f"127.0.0.1:{port}",
                "FRAZIL_DEVICE": "cpu",
                "FRAZIL_THREADS": "1",
                "FRAZIL_GRACE_SECONDS": "120",
                "GLOO_SOCKET_IFNAME": "lo",
            }
            command = [sys.executable, "-m", "frazil_jobs.training"]
            started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
        self.pods += started
        return started

    def end(self) -> None:
        """Leave no process behind; ranks end with their launchers."""
        for pod in self.pods:
            pod.kill()
            pod.wait()

    def upload_until(self, attempt: int, holds) -> None:
        """Store what comes into the spools until `holds()`."""
        uploaders = [Uploader(Spool(self.spool(attempt, node)), self.store, PREFIX) for node in range(2)]
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end
            for uploader in uploaders:
                for entry in uploader.spool.pending():
                    uploader.upload(entry)
            time.sleep(0.05)

    def step(self) -> int:
        found = find(self.store, PREFIX)
        return found.step if found else 0

    def finish(self, attempt: int) -> dict[str, str]:
        """Run an attempt to its end; the sha256 of each file of weights."""
        pods = self.start(attempt)
        self.upload_until(attempt, lambda: all(pod.poll() is not None for pod in pods))
        for pod in pods:
            assert pod.returncode == 0, pod.stderr.read()
        manifest = json.loads(self.store.get_bytes(f"{PREFIX}/manifest.json"))
        assert manifest["steps"] == STEPS
        return {one["key"]: one["sha256"] for one in manifest["outputs"] if one["key"].endswith(".safetensors")}


@contextmanager
def world_in(folder: Path, **spec) -> Iterator[World]:
    world = World(folder, **spec)
    try:
        yield world
    finally:
        world.end()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, str]:
    with world_in(tmp_path_factory.mktemp("undisturbed")) as world:
        return world.finish(0)


@pytest.fixture
def world(tmp_path, request) -> Iterator[World]:
    with world_in(tmp_path, **getattr(request, "param", {})) as world:
        yield world


def ranks_of(pod: subprocess.Popen) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pod.pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def test_a_rank_that_is_killed_takes_the_others_down_and_the_next_attempt_ends_alike(world, undisturbed):
    pods = world.start(0)
    world.upload_until(0, lambda: world.step() >= 20)
    for rank in ranks_of(pods[1]):
        os.kill(rank, signal.SIGKILL)
    codes = [pod.wait(timeout=SECONDS) for pod in pods]
    assert codes == [75, 75]
    assert "was killed by SIGKILL" in pods[1].stderr.read()
    assert world.step() >= 20
    assert world.finish(1) == undisturbed


@pytest.mark.parametrize("world", [{"checkpoint": {"everySteps": 1000}}], indirect=True, ids=["no checkpoint is due"])
def test_a_request_to_stop_stores_a_checkpoint_and_ends_with_75(world, undisturbed):
    pods = world.start(0)

    def trains() -> bool:
        progress = world.spool(0, 0) / "progress" / "training.json"
        return progress.exists() and json.loads(progress.read_text())["step"] >= 3

    world.upload_until(0, trains)
    for pod in pods:
        pod.send_signal(signal.SIGTERM)
    world.upload_until(0, lambda: all(pod.poll() is not None for pod in pods))
    assert [pod.returncode for pod in pods] == [75, 75]
    assert 3 <= world.step() < STEPS
    assert "a checkpoint is stored" in pods[0].stderr.read()
    assert world.finish(1) == undisturbed
