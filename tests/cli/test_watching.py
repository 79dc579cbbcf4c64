"""What is known of a run, from its spools."""

from types import SimpleNamespace

import pytest

from frazil_cli.watching import Watch
from frazil_cli.workspace import workspace
from frazil_jobs.outputs.progress import ShardProgress
from frazil_jobs.outputs.spool import Spool


@pytest.fixture
def watch(tmp_path):
    space = workspace(name="ice", uid="0" * 64, store="here", prefix="default/ice-0", work_dir=tmp_path)
    Spool(space.spool(0))
    return Watch(SimpleNamespace(images=8, layout=SimpleNamespace(replicas=1)), space)


def test_the_ranks_are_at_work_from_the_first_step_of_this_run_on(watch):
    spool = watch.space.spool(0)
    at_step = {"shard": 0, "total": 8, "steps": 30, "state": "Running"}
    ShardProgress(**at_step, step=12, updated_at=1.0).write(spool)  # left by a run that was killed
    watch.begin([])
    watch.look([0], 100.0)
    assert watch.first_step is None
    ShardProgress(**at_step, step=0).write(spool)  # the batch has begun: the first call may still compile or warm up
    watch.look([0], 101.0)
    assert watch.first_step is None
    ShardProgress(**at_step, step=1).write(spool)
    watch.look([0], 102.0)
    ShardProgress(**at_step, step=2).write(spool)
    watch.look([0], 103.0)
    assert watch.first_step == 102.0
