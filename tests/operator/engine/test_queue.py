"""The keyed work queue, as controllers have it."""

from __future__ import annotations

import asyncio

import pytest

from frazil_operator.engine.queue import LONGEST_PAUSE_SECONDS, WorkQueue


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, timeout=10))


def test_a_key_waits_once_however_often_it_is_added():
    async def story():
        queue = WorkQueue()
        for _ in range(3):
            queue.add("a")
        queue.add("b")
        assert [(await queue.get())[0], (await queue.get())[0]] == ["a", "b"]
        assert len(queue) == 0

    run(story())


def test_a_key_in_work_comes_back_once_when_it_was_added_meanwhile():
    async def story():
        queue = WorkQueue()
        queue.add("a")
        await queue.get()
        queue.add("a")
        queue.add("a")
        assert len(queue) == 0, "no second worker may have it"
        queue.done("a")
        assert (await queue.get())[0] == "a"
        queue.done("a")
        assert len(queue) == 0

    run(story())


def test_the_earlier_of_two_times_counts():
    async def story():
        queue = WorkQueue()
        queue.add_after("a", 30)
        queue.add_after("a", 0.02)
        queue.add_after("a", 30)
        assert (await queue.get())[0] == "a"

    run(story())


def test_pauses_double_up_to_a_limit_for_each_key_on_its_own_and_begin_anew_after_a_success():
    async def story():
        queue = WorkQueue(jitter=lambda: 0.5)
        pauses = [queue.retry("a") for _ in range(12)]
        assert pauses[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
        assert pauses[-1] == LONGEST_PAUSE_SECONDS
        assert queue.retry("b") == pytest.approx(0.2)
        queue.forget("a")
        assert queue.retry("a") == pytest.approx(0.2)

    run(story())


def test_a_dropped_key_does_not_come_back():
    async def story():
        queue = WorkQueue()
        queue.add_after("a", 0.02)
        queue.drop("a")
        await asyncio.sleep(0.06)
        assert len(queue) == 0

    run(story())


def test_the_ages_of_what_waits_and_what_is_in_work():
    async def story():
        now = [100.0]
        queue = WorkQueue(clock=lambda: now[0])
        queue.add("a")
        queue.add("b")
        await queue.get()
        now[0] += 7
        assert (queue.oldest_seconds, queue.stalled_seconds) == (7, 7)
        now[0] += 1
        await queue.get()
        assert (queue.oldest_seconds, queue.stalled_seconds) == (8, 0)

    run(story())


def test_a_long_queue_that_moves_has_not_stalled():
    """Ten thousand jobs at once wait for minutes: a probe that took that for a stuck loop would begin anew for ever."""

    async def story():
        now = [100.0]
        queue = WorkQueue(clock=lambda: now[0])
        for number in range(1000):
            queue.add(number)
        for _ in range(999):
            key, _ = await queue.get()
            now[0] += 1
            queue.done(key)
            assert queue.stalled_seconds == 1
        now[0] += 500
        assert queue.stalled_seconds == 501

    run(story())
