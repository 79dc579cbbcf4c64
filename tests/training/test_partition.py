"""The cut into stages: even in blocks, or in counted work."""

from __future__ import annotations

from itertools import combinations

import tiny_models
from hypothesis import given, settings
from hypothesis import strategies as st

from frazil_jobs.training.partition import balance, partition, work
from frazil_jobs.training.tasks import open_task


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_no_other_cut_has_a_cheaper_dearest_stage(costs, stages):
    if stages > len(costs):
        return
    found = balance(costs, stages)
    assert [block for part in found for block in part] == list(range(len(costs)))
    assert all(found)
    dearest = max(sum(costs[block] for block in part) for part in found)
    best = min(
        max(sum(costs[a:b]) for a, b in zip((0, *cuts), (*cuts, len(costs)), strict=True))
        for cuts in combinations(range(1, len(costs)), stages - 1)
    )
    assert dearest == best


def test_a_head_over_a_large_vocabulary_makes_the_last_stage_shorter(tmp_path):
    task = open_task(tiny_models.job(), tiny_models.llama(tmp_path, layers=8))
    model = task.model()
    first, each, last = work(model, task.cut, 8)
    assert first == 0
    assert len(set(each)) == 1
    assert last == 300 * 32
    ranges = partition(model, task.cut, blocks=8, stages=2, balanced=True)
    assert len(ranges[0]) > len(ranges[1])
    assert partition(model, task.cut, blocks=8, stages=2, balanced=False) == [range(4), range(4, 8)]
