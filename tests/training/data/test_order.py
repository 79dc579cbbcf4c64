"""The order of samples: every epoch whole, shuffled, the same for any number of replicas, and resumable."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from frazil_jobs.training.data.order import BatchOrder, Share, held_out, samples_of


def test_each_epoch_takes_every_sample_once_and_in_another_order():
    first = samples_of(seed=1, count=50, first=0, size=50)
    second = samples_of(seed=1, count=50, first=50, size=50)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert samples_of(seed=2, count=50, first=0, size=50) != first


def test_a_batch_larger_than_the_data_set_goes_on_with_the_next_epoch():
    taken = samples_of(seed=3, count=7, first=5, size=30)
    assert len(taken) == 30
    assert taken == samples_of(seed=3, count=7, first=0, size=35)[5:]


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_replicas_and_accumulated_parts_together_are_the_batch(replicas: int, accumulation: int):
    step, batch = 3, 16
    taken = []
    for part in range(accumulation):
        for replica in range(replicas):
            share = Share(batch=batch, accumulation=accumulation, replicas=replicas, replica=replica)
            number = step * accumulation + part
            taken += samples_of(seed=5, count=100, first=share.start(number), size=share.size)
    assert taken == samples_of(seed=5, count=100, first=step * batch, size=batch)


def test_an_order_goes_on_from_its_state():
    def order() -> BatchOrder:
        return BatchOrder(seed=4, count=30, share=Share(batch=8), batches=10)

    whole = list(order())
    assert len(whole) == 10
    begun = order()
    list(islice(begun, 4))
    resumed = order()
    resumed.load_state_dict(begun.state_dict())
    assert list(resumed) == whole[4:]


def test_a_sample_is_not_always_in_the_same_microbatch():
    places = Counter(samples_of(seed=6, count=16, first=epoch * 16, size=16).index(3) // 4 for epoch in range(40))
    assert set(places) == {0, 1, 2, 3}


@pytest.mark.parametrize("count", [2, 99, 100, 1000])
def test_one_row_in_a_hundred_is_set_aside_and_never_trained_on(count: int):
    training, validation = held_out(count)
    assert not set(training) & set(validation)
    assert sorted([*training, *validation]) == list(range(count))
    assert len(validation) == max(1, count // 100)
