"""Progress through Redis: one small hash a job, whose fields are the shards. A hint that may be old, or gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import redis
from pydantic import ValidationError

from frazil_jobs.outputs.progress import ShardProgress

KEEP_SECONDS: Final = 24 * 3600
"""Since the last word on a job; nothing stays for ever."""
REDIS_SECONDS: Final = 2.0
"""Time-out of one call."""


def redis_key(uid: str) -> str:
    """The hash of one job."""
    return f"frazil:progress:{uid}"


def connect(redis_url: str) -> redis.Redis:
    """A client whose calls all have a time-out. Connects when it's first used."""
    return redis.Redis.from_url(redis_url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS)


def relay_progress(client: redis.Redis, uid: str, progress: list[ShardProgress]) -> None:
    """Write what changed. Raises redis.RedisError."""
    if not progress:
        return
    fields: Mapping[Any, Any] = {str(one.shard): one.model_dump_json() for one in progress}
    with client.pipeline(transaction=False) as pipe:
        pipe.hset(redis_key(uid), mapping=fields)
        pipe.expire(redis_key(uid), KEEP_SECONDS)
        pipe.execute()


def read_progress(redis_url: str, uid: str) -> list[ShardProgress]:
    """What Redis holds of a job, by shard. Raises ConnectionError when it doesn't answer."""
    client = connect(redis_url)
    try:
        raw = client.hgetall(redis_key(uid))
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
