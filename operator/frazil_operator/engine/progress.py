"""Progress from Redis: one pass over all jobs at work, at most every few seconds. A hint: an outage changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import redis
import redis.asyncio
from pydantic import ValidationError

from frazil_jobs.base.log import get_logger
from frazil_jobs.outputs.progress import ShardProgress, TrainingProgress
from frazil_jobs.outputs.relay import redis_key
from frazil_operator.engine.metrics import Metrics
from frazil_operator.engine.state import Body, named
from frazil_operator.reconcile.plan import JobKind, Key, Progress

log = get_logger(__name__)
_JOBS_A_CALL: Final = 200
_ENTRIES: Final[Mapping[JobKind, type[Progress]]] = {"GenerationJob": ShardProgress, "TrainingJob": TrainingProgress}


class ProgressBoard:
    """What Redis held of each job when it was last read."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        *,
        seconds: float,
        at_work: Callable[[], list[tuple[Key, Body]]],
        changed: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        """`at_work`: the jobs to ask for. `changed`: called with the uid of one that has moved."""
        self._client = client
        self._seconds = seconds
        self._at_work = at_work
        self._changed = changed
        self._metrics = metrics
        self._raw: dict[str, dict[bytes, bytes]] = {}
        self._parsed: dict[str, tuple[Progress, ...]] = {}
        self._senseless: set[str] = set()
        """Jobs of whose entries some make no sense, which was said."""

    def of(self, uid: str) -> tuple[Progress, ...] | None:
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
        jobs = [(key, str(job["metadata"]["uid"]), job) for key, job in self._at_work()]
        uids = {uid for _, uid, _ in jobs}
        for gone in [uid for uid in self._raw if uid not in uids]:
            self._raw.pop(gone), self._parsed.pop(gone, None)
            self._senseless.discard(gone)
        for start in range(0, len(jobs), _JOBS_A_CALL):
            part = jobs[start : start + _JOBS_A_CALL]
            async with self._client.pipeline(transaction=False) as pipe:
                for key, uid, _ in part:
                    pipe.hgetall(redis_key(key.namespace, uid))
                answers = await pipe.execute()
            for (key, uid, job), answer in zip(part, answers, strict=True):
                if answer and answer != self._raw.get(uid):
                    self._raw[uid] = answer
                    self._parsed[uid], problem = parse(key.kind, answer)
                    if problem and uid not in self._senseless:
                        self._senseless.add(uid)
                        log.warning("progress that makes no sense is left out", error=problem, **named(key, job))
                    self._changed(uid)


def parse(kind: JobKind, raw: Mapping[bytes, bytes]) -> tuple[tuple[Progress, ...], str]:
    """The entries of a job's hash that make sense, by shard; and what is wrong with another, if something is."""
    found, problem = [], ""
    for value in raw.values():
        try:
            found.append(_ENTRIES[kind].model_validate_json(value))
        except ValidationError as error:
            problem = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return tuple(sorted(found, key=lambda entry: entry.shard)), problem[:300]
