"""A job whose checkpoints a pod's spool can't hold is refused before its first step, with what to raise."""

from __future__ import annotations

import pytest
import tiny_models
from torch import nn

from frazil_jobs.api.trainingjob import Optimizer
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training import state
from frazil_jobs.training.optimizer import Ema, make_optimizer
from frazil_jobs.training.room import check_room, checkpoint_bytes
from frazil_jobs.training.tasks import open_task

SETTINGS = {
    "AdamW": {},
    "AdamW with means": {"ema": "0.9"},
    "SGD": {"name": "SGD"},
    "SGD without momentum": {"name": "SGD", "betas": ["0", "0.9"]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_counted_is_what_is_written(name, tmp_path):
    settings = Optimizer(**SETTINGS[name])
    task = open_task(tiny_models.job(dataset={"uri": "data", "sequenceLength": 16}), tiny_models.llama(tmp_path))
    stages = [task.stage(range(2)), task.stage(range(2, 4))]
    weights: dict[str, nn.Parameter] = {k: v for stage in stages for k, v in stage.weights().items()}
    optimizer, ema = make_optimizer(settings, weights), Ema(weights, 0.9) if settings.ema != "0" else None
    for weight in weights.values():
        weight.grad = weight.detach().clone()
    optimizer.step()
    written = state.gathered(weights, optimizer, ema, rank=0, own=None)
    counted = checkpoint_bytes(settings, stages)
    assert sum(v.nbytes for k, v in written.items() if v.ndim and not k.startswith("rank/")) == counted


@pytest.mark.parametrize(
    ("sizes", "pipeline", "local", "needed"),
    [
        ([10, 20], 2, 2, 60),  # one pod: a whole one to go on from, and a whole one to write
        ([10, 20], 2, 1, 50),  # two pods
        ([10, 20, 10, 20], 2, 4, 60),  # two replicas in a pod write what they have in common once
        ([10, 20, 10, 20], 2, 1, 50),
    ],
)
def test_a_spool_must_hold_a_checkpoint_and_a_pods_part_of_the_next(sizes, pipeline, local, needed):
    check_room(sizes, pipeline=pipeline, local=local, room=needed)
    with pytest.raises(BadConfiguration) as caught:
        check_room(sizes, pipeline=pipeline, local=local, room=needed - 1)
    assert "jobs.spoolSize" in caught.value.remedy
