"""Progress from Redis, through a real one: what makes no sense is left out, and said once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import redis.asyncio
from log_lines import log_lines
from servers import RealRedis

from frazil_jobs.outputs.progress import ShardProgress, TrainingProgress
from frazil_jobs.outputs.relay import redis_key
from frazil_operator.engine.metrics import Metrics
from frazil_operator.engine.progress import ProgressBoard, parse
from frazil_operator.reconcile.plan import Key

SHARD = {"shard": 0, "total": 4, "generated": 2}
TRAINING = {"step": 3, "steps": 9}
NONSENSE = [
    ("GenerationJob", SHARD | {"generated": "x"}),
    ("GenerationJob", SHARD | {"generated": -1}),
    ("GenerationJob", SHARD | {"stored": None}),
    ("GenerationJob", SHARD | {"updated_at": "yesterday"}),
    ("GenerationJob", SHARD | {"state": "Asleep"}),
    ("GenerationJob", {"shard": "first", "total": 4}),
    ("GenerationJob", [1, 2]),
    ("GenerationJob", "{"),
    ("TrainingJob", TRAINING | {"step": "x"}),
    ("TrainingJob", TRAINING | {"loss": "low"}),
    ("TrainingJob", TRAINING | {"checkpoint": {"step": "x"}}),
    ("TrainingJob", TRAINING | {"checkpoint": "s3://frazil/c/3"}),
    ("TrainingJob", SHARD),
]


def raw(*entries: Any) -> dict[bytes, bytes]:
    """A hash as Redis answers it."""
    texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    return {str(number).encode(): text.encode() for number, text in enumerate(texts)}


@pytest.mark.parametrize(("kind", "entry"), NONSENSE)
def test_an_entry_that_makes_no_sense_is_left_out_and_the_others_stay(kind, entry):
    good = SHARD | {"shard": 1} if kind == "GenerationJob" else TRAINING
    found, problem = parse(kind, raw(entry, good))
    assert [one.shard for one in found] == [good.get("shard", 0)]
    assert problem


def test_entries_come_by_shard():
    found, problem = parse("GenerationJob", raw(SHARD | {"shard": 2}, SHARD | {"shard": 1, "later": "word"}))
    assert [one.shard for one in found] == [1, 2]
    assert problem == ""


def test_what_the_pods_write_is_what_is_read():
    checkpoint = {"step": 3, "attempt": 1, "uri": "s3://frazil/c/3", "resumedFromStep": 2}
    told = TrainingProgress(step=3, loss=float("nan"), checkpoint=checkpoint)
    ((found,), problem) = parse("TrainingJob", raw(told.model_dump_json()))
    assert problem == ""
    assert found.checkpoint.document() == checkpoint
    shard = ShardProgress(shard=1, total=4, generated=2, state="Running", images_per_second=0.5)
    assert parse("GenerationJob", raw(shard.model_dump_json())) == ((shard,), "")


def test_a_job_whose_progress_makes_no_sense_is_named_once(redis_server: RealRedis, monkeypatch):
    lines = log_lines(monkeypatch)
    key = Key("GenerationJob", "team", "ice")
    jobs = [(key, {"metadata": {"uid": "u-senseless"}, "status": {"attempt": 2}})]
    server, name, changed = redis_server.client(), redis_key("team", "u-senseless"), []

    async def story() -> None:
        client = redis.asyncio.Redis.from_url(redis_server.url)
        board = ProgressBoard(client, seconds=1, at_work=lambda: jobs, changed=changed.append, metrics=Metrics())
        server.hset(name, "0", json.dumps(SHARD | {"generated": "x"}))
        for generated in range(3):
            server.hset(name, "1", json.dumps(SHARD | {"shard": 1, "generated": generated}))
            await board._pass()
        await board._pass()
        (found,) = board.of("u-senseless") or ()
        assert (found.shard, found.generated) == (1, 2)
        jobs.clear()
        await board._pass()
        assert board.of("u-senseless") is None
        await client.aclose()

    asyncio.run(story())
    assert changed == ["u-senseless"] * 3
    (line,) = lines
    assert (line["job"], line["namespace"], line["kind"], line["attempt"]) == ("ice", "team", "GenerationJob", 2)
    assert "generated" in line["error"]
