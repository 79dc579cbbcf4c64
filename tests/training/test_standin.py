"""The stand-in of the trainer, as processes: its end tells whether each step was done once, from what the last one left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import yaml
from gangjobs import training_job
from servers import free_port

from frazil_jobs.inputs.checkpoints import find
from frazil_jobs.inputs.training_task import Checkpoint, TrainingTask, newest
from frazil_jobs.outputs.spool import Spool
from frazil_jobs.outputs.uploader import Uploader
from frazil_jobs.stores import StoreConfig, open_store
from frazil_jobs.training.standin import END, expected

PREFIX = "team/chain-0a1b2c3d"


class Here:
    namespace = "team"


class World:
    """Pods as processes: `fetch`, an uploader, the ranks."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.store = open_store(StoreConfig(uri=f"file://{folder}/store"))
        self.job = folder / "job.yaml"
        job = training_job(Here, "chain")
        self.job.write_text(yaml.safe_dump(job))

    def spool(self, attempt: int, rank: int):
        return self.folder / f"spool-{attempt}-{rank}"

    def fetch(self, attempt: int, rank: int) -> TrainingTask:
        env = {
            "PATH": os.environ["PATH"],
            "FRAZIL_JOB_FILE": str(self.job),
            "FRAZIL_SPOOL": str(self.spool(attempt, rank)),
            "FRAZIL_PREFIX": PREFIX,
            "FRAZIL_JOB_UID": "0a1b2c3d-0000-4000-8000-000000000000",
            "FRAZIL_ATTEMPT": str(attempt),
            "FRAZIL_STORE": f"file://{self.folder}/store",
        }
        subprocess.run([sys.executable, "-m", "frazil_jobs.inputs.fetch"], env=env, check=True, timeout=60)
        return TrainingTask.read(self.spool(attempt, rank))

    def start(self, attempt: int, ranks: int) -> list[subprocess.Popen]:
        port = free_port()
        started = []
        for rank in range(ranks):
            self.fetch(attempt, rank)
            env = os.environ | {
                "FRAZIL_SPOOL": str(self.spool(attempt, rank)),
                "FRAZIL_NODES": str(ranks),
                "FRAZIL_NODE_RANK": str(rank),
                "FRAZIL_RENDEZVOUS": f"127.0.0.1:{port}",
                "STAND_IN_STEP_SECONDS": "0.05",
                "GLOO_SOCKET_IFNAME": "lo",
            }
            command = [sys.executable, "-m", "frazil_jobs.training"]
            started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
        return started

    def upload_until(self, attempt: int, holds) -> None:
        spool = Spool(self.spool(attempt, 0))
        uploader = Uploader(spool, self.store, PREFIX)
        end = time.monotonic() + 90
        while not holds():
            assert time.monotonic() < end
            for entry in spool.pending():
                uploader.upload(entry)
            time.sleep(0.02)

    def end(self) -> dict:
        return json.loads(self.store.get_bytes(f"{PREFIX}/{END}"))


def test_a_gang_that_loses_a_rank_goes_on_from_the_newest_committed_checkpoint(tmp_path):
    world = World(tmp_path)
    first = world.start(0, 2)
    world.upload_until(0, lambda: (find(world.store, PREFIX) or Checkpoint(0, 0)).step >= 20)
    first[1].kill()
    assert first[0].wait(timeout=60) == 75
    assert "rank" in first[0].stderr.read()
    newest_step = find(world.store, PREFIX).step
    second = world.start(1, 2)
    world.upload_until(1, lambda: all(process.poll() is not None for process in second))
    assert [process.returncode for process in second] == [0, 0]
    assert TrainingTask.read(world.spool(1, 0)).resume_step == newest_step
    assert world.end() == {"step": 60, "state": expected(3, 60, 2)}


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ([], None),
        (["checkpoints/step-00000010-a0/state.json"], None),
        (["checkpoints/step-00000010-a0/COMMITTED"], Checkpoint(10, 0)),
        (
            [
                "checkpoints/step-00000010-a0/COMMITTED",
                "checkpoints/step-00000030-a1/state.json",
                "checkpoints/step-00000020-a1/COMMITTED",
                "checkpoints/step-00000020-a0/COMMITTED",
            ],
            Checkpoint(20, 1),
        ),
        (["checkpoints/step-100000000-a12/COMMITTED", "checkpoints/nonsense/COMMITTED"], Checkpoint(100_000_000, 12)),
    ],
)
def test_only_what_is_committed_counts(keys, found):
    assert newest(keys) == found
    if found is not None:
        assert found.marker in keys
