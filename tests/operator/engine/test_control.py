"""Questions to the worker Deployment, through a real Redis: asked until they are answered, whatever becomes of Redis."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
import structlog
from kombu.exceptions import OperationalError
from log_lines import ABOUT, log_lines
from servers import RealRedis

from frazil_jobs.outputs.celery_app import CONTROL_QUEUE, make_app
from frazil_operator.engine.control import (
    AGAIN_SECONDS,
    LOST_SECONDS,
    POLL_SECONDS,
    UNASKED_AGAIN_SECONDS,
    Control,
    answer_of,
)
from frazil_operator.engine.metrics import Metrics
from frazil_operator.reconcile.plan import Ask, Finalization, Inspection, Removal

ASK = Ask("inspect", "u1/inspect", {"job": {}})
PIN = {"prompts": {"sha256": "ab", "count": 3, "shards": 1}}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Asking:
    """A Control that polls, and the worker's side of it."""

    def __init__(self, server: RealRedis, client: redis.asyncio.Redis) -> None:
        self.server, self.clock, self.heard = server, Clock(), []
        self.app = make_app(server.url)
        self.metrics = Metrics()
        self.control = Control(self.app, client, answered=self.heard.append, metrics=self.metrics, clock=self.clock)

    def asked(self) -> int:
        """Messages that wait for a worker."""
        return int(self.server.client().llen(CONTROL_QUEUE))

    @property
    def task(self) -> str:
        """The id of the question that is open."""
        (question,) = self.control._open.values()
        return question.task_id

    def work(self, result) -> None:
        """As a worker answers."""
        self.app.backend.mark_as_done(self.task, result)

    async def until(self, holds) -> None:
        for _ in range(int(60 / POLL_SECONDS)):
            if holds():
                return
            await asyncio.sleep(POLL_SECONDS)
        raise AssertionError("it does not come to that")


@asynccontextmanager
async def asking(server: RealRedis):
    client = redis.asyncio.Redis.from_url(server.url, socket_timeout=5, socket_connect_timeout=5)
    found = Asking(server, client)
    polling = asyncio.create_task(found.control.poll())
    try:
        yield found
        assert not polling.done(), "it must go on for ever"
    finally:
        polling.cancel()
        await client.aclose()


@pytest.fixture
def server(tmp_path):
    found = RealRedis(tmp_path / "redis")
    found.start()
    yield found
    found.stop()


def test_a_question_that_is_asked_again_names_the_job_that_asked_it(monkeypatch):
    """It's asked again by the loop that looks for answers, which knows no job."""
    lines = log_lines(monkeypatch)
    about = {"job": "ice", "namespace": "team", "kind": "GenerationJob", "attempt": 1}

    class Away:
        async def set(self, *_: object, **__: object) -> None:
            raise redis.ConnectionError("nobody there")

        async def mget(self, keys: list[str]) -> list[None]:
            return [None] * len(keys)

    async def story():
        control = Control(make_app("redis://127.0.0.1:1/0"), Away(), answered=lambda uid: None, metrics=Metrics())
        with structlog.contextvars.bound_contextvars(**about):
            await control.ask(ASK)
        await control._look()

    asyncio.run(story())
    assert len(lines) == 2
    assert [{name: line[name] for name in ABOUT} for line in lines] == [about] * 2


def test_a_question_is_asked_once_and_its_answer_kept(server):
    async def story():
        async with asking(server) as found:
            for _ in range(3):
                await found.control.ask(ASK)
            assert found.asked() == 1
            assert found.control.answer("u1", "inspect") is None
            found.work(PIN)
            await found.until(lambda: found.heard == ["u1"])
            assert found.control.answer("u1", "inspect") == Inspection(pin=PIN["prompts"])
            await found.control.ask(ASK)
            assert found.asked() == 1, "it has its answer"
            found.control.forget("u1")
            assert found.control.answer("u1", "inspect") is None

    asyncio.run(story())


def test_no_channel_is_left_open_for_a_question(server):
    """Celery subscribes to one a task, and Redis ends a subscriber that never reads."""

    async def story():
        async with asking(server) as found:
            for number in range(5):
                await found.control.ask(Ask("inspect", f"u{number}/inspect", {"job": {}}))
            assert found.asked() == 5
            assert server.client().pubsub_channels() == []

    asyncio.run(story())


def test_a_redis_that_forgot_the_question_is_asked_again(server):
    async def story():
        async with asking(server) as found:
            await found.control.ask(ASK)
            server.kill()
            await asyncio.sleep(POLL_SECONDS)
            server.start()
            await found.until(lambda: found.asked() == 1)
            found.work(PIN)
            await found.until(lambda: found.heard)

    asyncio.run(story())


def test_a_redis_that_is_away_when_it_is_asked_is_asked_when_it_is_back(server):
    async def story():
        async with asking(server) as found:
            server.kill()
            await found.control.ask(ASK)
            server.start()
            await found.until(lambda: found.asked() == 1)

    asyncio.run(story())


def test_a_redis_that_goes_while_it_is_asked_ends_nothing(server, monkeypatch):
    """What Celery raises then is neither Redis' error nor the system's."""

    async def story():
        async with asking(server) as found:
            tried = []

            def gone(*_, **__):
                tried.append(1)
                server.client().flushall()
                raise OperationalError("Connection refused")

            with monkeypatch.context() as patch:
                patch.setattr(found.app, "send_task", gone)
                await found.control.ask(ASK)
                await found.until(lambda: len(tried) >= 2)
            await found.until(lambda: found.asked() == 1)

    asyncio.run(story())


def test_what_celery_raises_without_a_redis_is_the_error_that_is_caught():
    app = make_app("redis://127.0.0.1:1/0")
    client = redis.asyncio.Redis.from_url("redis://127.0.0.1:1/0")
    control = Control(app, client, answered=lambda _: None, metrics=Metrics())

    async def marked(*_, **__):
        return True

    client.set = marked

    async def story():
        await control.ask(ASK)
        assert control.answer("u1", "inspect") is None

    asyncio.run(story())


def test_a_question_that_a_broken_connection_swallowed_is_asked_again_within_seconds(server):
    """Connections to the broker are several: one that has rested since before Redis was restarted is found broken."""

    async def story():
        async with asking(server) as found:
            send = found.app.send_task

            def broken(*_: object, **__: object) -> None:
                found.app.send_task = send
                raise OperationalError("Connection closed by server.")

            found.app.send_task = broken
            await found.control.ask(ASK)
            await asyncio.sleep(POLL_SECONDS * 3)
            assert found.asked() == 0
            found.clock.now += UNASKED_AGAIN_SECONDS + 0.1
            await found.until(lambda: found.asked() == 1)
            await asyncio.sleep(POLL_SECONDS * 3)
            assert found.asked() == 1, "once"

    asyncio.run(story())


def test_a_question_whose_worker_is_lost_is_asked_again_after_a_while(server):
    async def story():
        async with asking(server) as found:
            await found.control.ask(ASK)
            await asyncio.sleep(POLL_SECONDS * 3)
            assert found.asked() == 1
            found.clock.now += LOST_SECONDS["inspect"] + 1
            await found.until(lambda: found.asked() == 2)

    asyncio.run(story())


def test_what_no_worker_answers_is_told_with_its_age_also_when_it_was_asked_again(server):
    def told(found: Asking) -> tuple[float | None, float | None]:
        value = found.metrics.registry.get_sample_value
        return value("frazil_tasks_open", {"task": "inspect"}), value("frazil_task_oldest_seconds")

    async def story():
        async with asking(server) as found:
            await found.until(lambda: told(found) == (0.0, 0.0))
            await found.control.ask(ASK)
            found.clock.now += LOST_SECONDS["inspect"] + 1
            await found.until(lambda: found.asked() == 2)
            await found.until(lambda: told(found) == (1.0, LOST_SECONDS["inspect"] + 1))
            assert found.control.asked_seconds("u1", "inspect") == LOST_SECONDS["inspect"] + 1
            found.work({"prompts": PIN["prompts"]})
            await found.until(lambda: told(found) == (0.0, 0.0))
            assert found.control.asked_seconds("u1", "inspect") is None

    asyncio.run(story())


def test_an_answer_that_says_later_is_asked_again_later(server):
    async def story():
        async with asking(server) as found:
            await found.control.ask(ASK)
            found.work({"error": {"exitCode": 75, "message": "the store is away"}})
            await found.until(lambda: found.heard)
            answer = found.control.answer("u1", "inspect")
            assert (answer.exit_code, answer.error) == (75, "the store is away")
            await found.control.ask(ASK)
            assert found.asked() == 1, "not at once"
            found.clock.now += AGAIN_SECONDS
            await found.control.ask(ASK)
            assert found.asked() == 2

    asyncio.run(story())


ANSWERS = {
    "prompts": ("inspect", PIN, Inspection(pin=PIN["prompts"])),
    "bad prompts": (
        "inspect",
        {"error": {"exitCode": 65, "message": "line 2"}},
        Inspection(error="line 2", exit_code=65),
    ),
    "all stored": (
        "finalize",
        {
            "finalized": {
                "total": 3,
                "stored": 3,
                "bytes": 9,
                "manifest": "p/manifest.json",
                "gallery": "p/index.html",
                "note": "30 dB",
            }
        },
        Finalization(total=3, stored=3, bytes=9, manifest="manifest.json", gallery="index.html", note="30 dB"),
    ),
    "too little stored": (
        "finalize",
        {"error": {"exitCode": 1, "message": "one lacks", "stored": 2, "total": 3}},
        Finalization(total=3, stored=2, error="one lacks", exit_code=1),
    ),
    "removed": ("delete_outputs", {"deleted": 3}, Removal(error="")),
    "not removed": ("delete_outputs", {"error": {"exitCode": 75, "message": "away"}}, Removal(error="away")),
}


@pytest.mark.parametrize(("name", "result", "wanted"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_read(name, result, wanted):
    assert answer_of(name, {"status": "SUCCESS", "result": result}) == wanted


@pytest.mark.parametrize("meta", [{"status": "FAILURE", "result": "boom"}, {"status": "SUCCESS", "result": None}])
def test_a_task_that_broke_down_is_one_to_ask_again(meta):
    assert answer_of("inspect", meta).exit_code == 75
    assert answer_of("delete_outputs", meta).error
