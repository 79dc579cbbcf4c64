"""Progress from Redis: one pass over all jobs at work, at most every few seconds. A hint: an outage changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import redis
import redis.asyncio

from frazil_jobs.base.log import get_logger
from frazil_jobs.outputs.relay import redis_key
from frazil_operator.engine.metrics import Metrics

log = get_logger(__name__)
_JOBS_A_CALL: Final = 200


class ProgressBoard:
    """What Redis held of each job when it was last read."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        seconds: float,
        at_work: Callable[[], list[tuple[str, str]]],
        changed: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        """`at_work`: namespaces and uids of the jobs to ask for. `changed`: called with the uid of one that has moved."""
        self._client = client
        self._seconds = seconds
        self._at_work = at_work
        self._changed = changed
        self._metrics = metrics
        self._raw: dict[str, dict[bytes, bytes]] = {}
        self._parsed: dict[str, tuple[Mapping[str, Any], ...]] = {}

    def of(self, uid: str) -> tuple[Mapping[str, Any], ...] | None:
        """What is known of a job, by shard."""
        return self._parsed.get(uid)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self._pass()
            except (redis.RedisError, OSError) as error:
                self._metrics.outages.labels(during="progress").inc()
                log.warning("Redis does not answer; progress stands still", error=str(error))

    async def _pass(self) -> None:
        jobs = self._at_work()
        uids = {uid for _, uid in jobs}
        for gone in [uid for uid in self._raw if uid not in uids]:
            self._raw.pop(gone), self._parsed.pop(gone, None)
        for start in range(0, len(jobs), _JOBS_A_CALL):
            part = jobs[start : start + _JOBS_A_CALL]
            async with self._client.pipeline(transaction=False) as pipe:
                for namespace, uid in part:
                    pipe.hgetall(redis_key(namespace, uid))
                answers = await pipe.execute()
            for (_, uid), answer in zip(part, answers, strict=True):
                if answer and answer != self._raw.get(uid):
                    self._raw[uid] = answer
                    self._parsed[uid] = tuple(parse(answer))
                    self._changed(uid)


def parse(raw: Mapping[bytes, bytes]) -> list[Mapping[str, Any]]:
    """The entries of a job's hash that make sense, by shard."""
    found = []
    for value in raw.values():
        try:
            entry = json.loads(value)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("shard"), int):
            found.append(entry)
    return sorted(found, key=lambda entry: int(entry["shard"]))
