"""What the watches have told, compared with what there is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from log_lines import ABOUT, log_lines

from frazil_operator.engine.state import State
from frazil_operator.engine.watchdog import Watchdog
from frazil_operator.kube.client import NotFound, Unavailable
from frazil_operator.reconcile.plan import Key

KEY = Key("GenerationJob", "team", "ice")
WATCHED = {"GenerationJob": "frazil.dev/v1alpha1", "Job": "batch/v1"}
JOBS, CHILDREN = "/apis/frazil.dev/v1alpha1/generationjobs", "/apis/batch/v1/jobs"


def job(version: int, uid: str = "u1") -> dict[str, Any]:
    return {"kind": "GenerationJob", "metadata": meta("ice", version, uid)}


def child(version: int, uid: str = "c1") -> dict[str, Any]:
    labels = {"frazil.dev/job-uid": "u1", "frazil.dev/kind": "GenerationJob", "frazil.dev/job-name": "ice"}
    return {"kind": "Job", "metadata": {**meta("ice-a0", version, uid), "labels": labels}}


def meta(name: str, version: int, uid: str) -> dict[str, Any]:
    return {"name": name, "namespace": "team", "uid": uid, "resourceVersion": str(version)}


class World:
    """An API server that lists, a page of one object at a time; and a watchdog that has no patience."""

    def __init__(self, *, namespaces: tuple[str, ...] = ()) -> None:
        self.now = 100.0
        self.there: dict[str, list[dict[str, Any]]] = {JOBS: [job(5)], CHILDREN: [child(6)]}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.away = False
        self.unserved: set[str] = set()
        self.state = State()
        self.state.see_job(KEY, job(5), deleted=False)
        self.state.see_child("Job", child(6), deleted=False)
        self.changed: list[Key] = []
        self.dog = Watchdog(
            self,
            self.state,
            watched=WATCHED,
            namespaces=list(namespaces),
            changed=self.changed.append,
            seconds=300,
            grace=0,
            clock=lambda: self.now,
        )

    async def request(self, method: str, path: str, *, query: dict[str, str], accept: str) -> dict[str, Any]:
        assert method == "GET"
        assert "PartialObjectMetadata" in accept
        if self.away:
            raise Unavailable(0, "TimeoutError", "")
        self.asked.append((path, dict(query)))
        if path in self.unserved:
            raise NotFound(404, "NotFound", "the server could not find the requested resource")
        start, things = int(query.get("continue", "0")), self.there.get(path, [])
        more = {"continue": str(start + 1)} if start + 1 < len(things) else {}
        return {"metadata": more, "items": [{"metadata": one["metadata"]} for one in things[start : start + 1]]}

    async def caught_up(self) -> None:
        self.state.see_job(KEY, self.there[JOBS][0], deleted=False)
        await self.dog.caught_up()

    def look(self, *, meanwhile: Any = lambda: None) -> list[str]:
        async def story() -> list[str]:
            looking = asyncio.create_task(self.dog.look())
            await asyncio.sleep(0)
            self.now += 1
            meanwhile()
            return await looking

        return asyncio.run(story())


def test_watches_that_have_told_all_are_well():
    world = World()
    assert world.look() == []
    assert len(world.asked) == 2, "one look is enough"
    assert world.asked[1][1]["labelSelector"] == "frazil.dev/managed=true"
    assert "labelSelector" not in world.asked[0][1]


@pytest.mark.parametrize("there", [[job(9)], [job(5), job(8, uid="u2")]], ids=["a newer version", "a new object"])
def test_a_watch_that_is_silent_while_there_is_something_to_tell_stands_still(there):
    world = World()
    world.there[JOBS] = there
    assert world.look() == ["GenerationJob"]


def test_a_watch_that_is_behind_and_talks_is_only_busy():
    world = World()
    world.there[JOBS] = [job(9)]
    assert world.look(meanwhile=lambda: world.dog.heard("GenerationJob", "team")) == []


def test_a_watch_that_has_caught_up_meanwhile_is_well():
    world = World()
    world.there[JOBS] = [job(9)]
    assert world.look(meanwhile=lambda: world.state.see_job(KEY, job(9), deleted=False)) == []


def test_another_watch_that_talks_is_no_excuse():
    world = World(namespaces=("team", "other"))
    world.there = {"/apis/frazil.dev/v1alpha1/namespaces/team/generationjobs": [job(9)]}
    world.there["/apis/batch/v1/namespaces/team/jobs"] = [child(6)]

    def others() -> None:
        world.dog.heard("GenerationJob", "other")
        world.dog.heard("Job", "team")

    assert world.look(meanwhile=others) == ["GenerationJob in team"]


def test_a_child_whose_end_no_watch_has_told_is_forgotten_and_its_job_looked_at(monkeypatch):
    """A job of the same name would wait for it for ever."""
    lines = log_lines(monkeypatch)
    world = World()
    world.there[CHILDREN] = []
    assert world.look() == []
    assert world.changed == [KEY]
    assert world.state.children("u1") == {}
    line = lines.said("a watch did not tell")
    assert line.keys() >= ABOUT
    assert (line["job"], line["kind"], line["object"]) == ("ice", "GenerationJob", "Job c1")


def test_a_kind_that_is_not_served_just_now_is_not_compared_and_all_others_are():
    world = World()
    world.unserved = {CHILDREN}
    assert world.look() == []
    world.there[JOBS] = [job(9)]
    assert world.look() == ["GenerationJob"]
    assert len(world.state.children("u1")["job"]) == 1, "nothing was said of its objects"
    asyncio.run(asyncio.wait_for(World.caught_up(world), timeout=20))


def test_a_job_whose_end_no_watch_has_told_is_forgotten():
    world = World()
    world.there = {}
    assert world.look() == []
    assert world.state.job(KEY) is None
    assert world.state.key_of("u1") is None


def test_what_was_made_between_the_two_looks_is_no_ghost():
    world = World()
    assert world.look(meanwhile=lambda: world.state.see_child("Job", child(9, uid="c2"), deleted=False)) == []
    assert world.changed == []


def test_it_has_caught_up_once_the_watches_have_told_all_that_there_was(monkeypatch):
    monkeypatch.setattr("frazil_operator.engine.watchdog._POLL_SECONDS", 0.001)
    world = World()
    world.there[JOBS] = [job(9)]
    world.there[CHILDREN] = [child(6), child(7, uid="c2")]

    async def story() -> None:
        waiting = asyncio.create_task(world.dog.caught_up())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        world.state.see_job(KEY, job(9), deleted=False)
        await asyncio.sleep(0.05)
        assert not waiting.done(), "a child is missing"
        world.there[CHILDREN] = [child(6)]
        await asyncio.sleep(0.05)
        assert not waiting.done()
        world.now += 61  # listed again: what was missing has been deleted meanwhile
        await asyncio.wait_for(waiting, timeout=20)

    asyncio.run(story())


def test_an_api_server_that_is_away_is_asked_another_time():
    world = World()
    world.away = True
    with pytest.raises(Unavailable):
        world.look()

    async def story() -> None:
        world.dog._seconds = 0.01
        running = asyncio.create_task(world.dog.run())
        await asyncio.sleep(0.05)
        assert not running.done()
        world.away = False
        world.there[JOBS] = [job(9)]
        await asyncio.wait_for(running, timeout=20)

    asyncio.run(story())
