"""Which images are made together, with which seeds."""

from __future__ import annotations

import pytest
import torch
from generation_tasks import make_job
from hypothesis import given
from hypothesis import strategies as st

from frazil_jobs.generation.batches import batches_of, items_of, unfinished
from frazil_jobs.inputs.rows import PromptRow
from frazil_jobs.inputs.task import Shard


def rows(count, **fields):
    return [PromptRow(prompt=f"prompt {number}", **fields) for number in range(count)]


def shard(*parts, index=0, first=0):
    return Shard(index=index, first=first, rows=[row for part in parts for row in part])


def spec(**fields):
    return make_job(**fields).spec


def numbers(batches):
    return [[(item.prompt_index, item.image_index) for item in batch.items] for batch in batches]


def test_images_are_taken_row_by_row_and_cut_into_batches():
    found = batches_of(spec(images_per_prompt=2), shard(rows(3)), batch_size=4)
    assert numbers(found) == [[(0, 0), (0, 1), (1, 0), (1, 1)], [(2, 0), (2, 1)]]
    assert [batch.number for batch in found] == [0, 1]


def test_a_shard_counts_its_prompts_from_its_first():
    found = batches_of(spec(), shard(rows(2), index=3, first=6), batch_size=8)
    assert numbers(found) == [[(6, 0), (7, 0)]]
    assert found[0].shard == 3
    assert [item.key for item in found[0].items] == ["images/000006-00.png", "images/000007-00.png"]


@pytest.mark.parametrize(
    "other",
    [{"extra": {"strength": 0.5}}, {"images": {"image": "files/a.png"}}, {"negative_prompt": "grey"}],
)
def test_rows_with_other_arguments_are_never_in_one_batch(other):
    found = batches_of(spec(), shard(rows(1), rows(1, **other), rows(1)), batch_size=8)
    assert numbers(found) == [[(0, 0), (2, 0)], [(1, 0)]]


def test_rows_may_differ_in_what_a_call_takes_as_a_list():
    different = [PromptRow(prompt="a", negative_prompt="b", seed=1, id="x"), PromptRow(prompt="c", negative_prompt="d")]
    assert len(batches_of(spec(), shard(different), batch_size=8)) == 1


def test_a_batch_with_one_image_missing_is_made_again_whole():
    found = batches_of(spec(output={"gallery": False}), shard(rows(4)), batch_size=2)
    stored = frozenset({"images/000000-00.png", "images/000002-00.png", "images/000003-00.png"})
    left = unfinished(found, stored)
    assert numbers(left) == [[(0, 0), (1, 0)]]
    assert [item.prompt_index for item in left[0].missing(stored)] == [1]


def test_an_image_without_its_thumbnail_is_not_finished_in_a_job_with_a_gallery():
    found = batches_of(spec(), shard(rows(1)), batch_size=1)
    assert unfinished(found, frozenset({"images/000000-00.png"})) == found
    assert unfinished(found, frozenset({"images/000000-00.png", "thumbnails/000000-00.webp"})) == []


@given(
    count=st.integers(1, 12),
    images=st.integers(1, 3),
    per_shard=st.integers(1, 12),
    batch_size=st.integers(1, 7),
    data=st.data(),
)
def test_every_image_is_made_exactly_once_whatever_the_grouping_with_its_own_seed(
    count, images, per_shard, batch_size, data
):
    made = [
        PromptRow(prompt="x", extra=data.draw(st.sampled_from([{}, {"a": 1}, {"a": 2}])), seed=data.draw(seeds))
        for _ in range(count)
    ]
    whole = spec(images_per_prompt=images, sampling={"seed": 7})
    found = [
        item
        for index, first in enumerate(range(0, count, per_shard))
        for batch in batches_of(
            whole, Shard(index=index, first=first, rows=made[first : first + per_shard]), batch_size=batch_size
        )
        for item in batch.items
    ]
    reference = items_of(whole, Shard(index=0, first=0, rows=made))
    assert sorted(found, key=lambda item: (item.prompt_index, item.image_index)) == reference


seeds = st.none() | st.integers(0, 2**32 - 1)


def test_the_batches_of_a_shard_do_not_depend_on_the_other_shards():
    everything = rows(6)
    alone = batches_of(spec(), shard(everything[2:4], index=1, first=2), batch_size=4)
    assert numbers(alone) == [[(2, 0), (3, 0)]]


def test_seeds_follow_from_the_place_and_give_different_noise():
    items = items_of(spec(images_per_prompt=2, sampling={"seed": 5}), shard(rows(3)))
    noise = [torch.randn(8, generator=torch.Generator("cpu").manual_seed(item.seed)) for item in items]
    assert [item.seed for item in items] == [5, 5 + 2**20, 6, 6 + 2**20, 7, 7 + 2**20]
    assert all(not torch.equal(noise[a], noise[b]) for a in range(6) for b in range(a))
