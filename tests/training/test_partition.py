"""The cut into stages that a job is trained with."""

from __future__ import annotations

import tiny_models

from frazil_jobs.training.partition import stage_blocks
from frazil_jobs.training.planning.schedules import order_of
from frazil_jobs.training.tasks import open_task


def blocks_of(folder, partition: str) -> list[range]:
    parallelism = {"pipeline": 2, "microbatches": 2, "partition": partition}
    job = tiny_models.job(parallelism=parallelism, workers={"gpusPerNode": 2})
    order = order_of("1F1B", ranks=2, microbatches=2)
    return stage_blocks(open_task(job, folder), order)


def test_a_head_over_a_large_vocabulary_makes_the_last_stage_shorter(tmp_path):
    folder = tiny_models.llama(tmp_path, layers=8, vocab_size=3000)
    assert blocks_of(folder, "Uniform") == [range(4), range(4, 8)]
    first, last = blocks_of(folder, "Balanced")
    assert first.stop == last.start
    assert len(first) > len(last) >= 1
