"""Progress through Redis: one small hash a job, whose fields are the shards. A hint that may be old, or gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis
from pydantic import ValidationError

from frazil_jobs.outputs.celery_app import keys_of
from frazil_jobs.outputs.progress import ShardProgress, TrainingProgress

KEEP_SECONDS: Final = 24 * 3600
"""Since the last word on a job; nothing stays for ever."""
REDIS_SECONDS: Final = 2.0
"""Time-out of one call."""


def redis_key(namespace: str, uid: str) -> str:
    """The hash of one job, below its namespace's own keys: a Redis user of a namespace may touch no other."""
    return f"{keys_of(namespace)}progress:{uid}"


def connect(redis_url: str) -> redis.Redis:
    """A client whose calls all have a time-out. Connects when it's first used."""
    return redis.Redis.from_url(redis_url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS)


def relay_progress(client: redis.Redis, key: str, progress: Sequence[ShardProgress | TrainingProgress]) -> None:
    """Write what changed below a key (`redis_key`). Raises redis.RedisError."""
    if not progress:
        return
    fields: Mapping[Any, Any] = {str(one.shard): one.model_dump_json() for one in progress}
    with client.pipeline(transaction=False) as pipe:
        pipe.hset(key, mapping=fields)
        pipe.expire(key, KEEP_SECONDS)
        pipe.execute()


def read_progress(redis_url: str, namespace: str, uid: str) -> list[ShardProgress]:
    """What Redis holds of a job, by shard. Raises ConnectionError when it doesn't answer."""
    client = connect(redis_url)
    try:
        raw = client.hgetall(redis_key(namespace, uid))
    except redis.RedisError as error:
        raise ConnectionError(f"Redis doesn't answer: {type(error).__name__}") from None
    finally:
        client.close()
    found = []
    for value in raw.values():
        try:
            found.append(ShardProgress.model_validate_json(value))
        except ValidationError:
            continue
    return sorted(found, key=lambda progress: progress.shard)
