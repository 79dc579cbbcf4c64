"""The probes: health is that work gets done, asked of the port that the kubelet asks."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from servers import free_port

from frazil_operator.engine.metrics import Metrics
from frazil_operator.engine.probes import STUCK_SECONDS, Health, serve
from frazil_operator.engine.queue import WorkQueue


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def health(clock: Clock | None = None, *, renewed_ago: float | None = 0.0) -> Health:
    renewed = None if renewed_ago is None else time.monotonic() - renewed_ago
    return Health(30.0, lambda: renewed, WorkQueue(clock=clock or Clock()), leading=True, working=True)


def test_a_replica_at_work_is_well():
    assert health().problems() == []


def test_one_that_stands_by_is_well_without_a_lease():
    found = health(renewed_ago=None)
    found.leading = False
    assert found.problems() == []


def test_a_lease_that_is_not_renewed_is_a_problem():
    assert "lease" in health(renewed_ago=31).problems()[0]


def test_a_part_that_has_ended_is_a_problem():
    found = health()
    found.broken.append("watching")
    assert found.problems() == ["watching"]


@pytest.mark.parametrize("waits", [0, 1])
def test_a_reconcile_that_does_not_end_is_a_problem(waits):
    async def story():
        clock = Clock()
        found = health(clock)
        found.queue.add("a")
        await found.queue.get()
        for number in range(waits):
            found.queue.add(number)
        clock.now += STUCK_SECONDS - 1
        assert found.problems() == []
        clock.now += 2
        assert "a reconcile has been running" in found.problems()[0]
        assert len(found.problems()) == 1 + waits

    asyncio.run(story())


def test_a_queue_of_which_nothing_is_taken_is_a_problem_only_once_jobs_are_looked_at():
    """One that starts among many jobs has them wait until it knows them all."""
    clock = Clock()
    found = health(clock)
    found.queue.add("a")
    clock.now += STUCK_SECONDS + 1
    assert "none was looked at" in found.problems()[0]
    found.working = False
    assert found.problems() == []


def test_the_port_says_it_and_metrics_are_there():
    port = free_port()

    async def story():
        found = health()
        runner = await serve(found, Metrics(), port=port)
        try:
            async with aiohttp.ClientSession() as http:

                async def ask(path: str) -> tuple[int, str]:
                    async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
                        return answer.status, await answer.text()

                assert await ask("/healthz") == (200, "ok")
                assert await ask("/readyz") == (200, "leading")
                assert "frazil_queue_depth 0.0" in (await ask("/metrics"))[1]
                found.broken += ["worker 3", "progress"]
                assert await ask("/healthz") == (500, "worker 3\nprogress")
                found.leading = False
                assert await ask("/readyz") == (200, "standing by")
        finally:
            await runner.cleanup()

    asyncio.run(story())
