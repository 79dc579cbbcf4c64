"""Every unfinished job is looked at once in each period, spread over it."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import pytest

from frazil_operator.engine import operator


@pytest.mark.parametrize("jobs", [0, 1, 3, 1000])
def test_each_job_is_looked_at_once_a_period_and_never_many_at_a_time(monkeypatch, jobs):
    looks, now = [], 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if now > 3001:
            raise asyncio.CancelledError

    monkeypatch.setattr(operator, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(operator, "time", SimpleNamespace(monotonic=lambda: now))
    phases = [*["Running"] * jobs, "Complete", "Failed"]
    known = SimpleNamespace(
        settings=SimpleNamespace(resync_seconds=300.0),
        state=SimpleNamespace(all_keys=lambda: list(range(len(phases))), job=lambda key: {}, phase=phases.__getitem__),
        queue=SimpleNamespace(add=lambda key: looks.append((now, key))),
    )
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(operator.Operator._resync(known))
    for key in range(jobs):
        times = [at for at, found in looks if found == key]
        assert len(times) in (10, 11)
        assert all(after - before == pytest.approx(300) for before, after in itertools.pairwise(times))
    assert {key for _, key in looks} == set(range(jobs)), "a finished job was looked at"
    assert len({at for at, _ in looks}) == len(looks)
