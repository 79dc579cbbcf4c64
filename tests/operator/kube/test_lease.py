"""One replica acts at a time: contenders for a Lease on an API server of two objects and a version."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta

from frazil_operator.kube.client import Conflict, NotFound, Unavailable
from frazil_operator.kube.lease import Lease


class Server:
    """Holds one object, with a version that a write must name."""

    def __init__(self) -> None:
        self.lease = None
        self.away = False

    async def get(self, path):
        if self.away:
            raise Unavailable(0, "TimeoutError", "")
        if self.lease is None:
            raise NotFound(404, "NotFound", path)
        return copy.deepcopy(self.lease)

    async def create(self, kind, path, body):
        if self.lease is not None:
            raise Conflict(409, "AlreadyExists", path)
        self.lease = {**copy.deepcopy(body), "metadata": {**body["metadata"], "resourceVersion": "1"}}
        return copy.deepcopy(self.lease)

    async def replace(self, kind, path, body):
        if self.away:
            raise Unavailable(0, "TimeoutError", "")
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", path)
        version = int(body["metadata"]["resourceVersion"]) + 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(version)
        return copy.deepcopy(self.lease)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def contender(server: Server, name: str, *, seconds: float = 15.0, clock=None) -> Lease:
    more = {"clock": clock} if clock else {}
    return Lease(server, namespace="frazil", name="operator", identity=name, seconds=seconds, **more)


def test_the_first_takes_it_and_the_second_stands_by():
    server = Server()

    async def story():
        first, second = contender(server, "a"), contender(server, "b")
        assert await first.try_acquire()
        assert not await second.try_acquire()
        assert await first.try_acquire(), "it renews its own"
        assert server.lease["spec"]["holderIdentity"] == "a"

    asyncio.run(story())


def test_one_that_was_given_back_is_free_at_once():
    server = Server()

    async def story():
        first, second = contender(server, "a"), contender(server, "b")
        await first.try_acquire()
        await first.release()
        assert await second.try_acquire()
        assert server.lease["spec"]["leaseTransitions"] == 1

    asyncio.run(story())


def test_two_that_write_at_once_do_not_both_have_it():
    server = Server()

    async def story():
        first, second = contender(server, "a"), contender(server, "b")
        await first.try_acquire()
        await first.release()
        stale = copy.deepcopy(server.lease)
        assert await second.try_acquire()

        async def old(path):
            return copy.deepcopy(stale)

        server.get = old
        assert not await contender(server, "c").try_acquire()
        assert server.lease["spec"]["holderIdentity"] == "b"

    asyncio.run(story())


def test_a_holder_that_can_not_renew_stops_before_another_may_take_it():
    server = Server()

    async def story():
        first = contender(server, "a", seconds=0.6)
        await first.try_acquire()
        server.away = True
        began = asyncio.get_running_loop().time()
        await asyncio.wait_for(first.hold(), timeout=5)
        assert asyncio.get_running_loop().time() - began >= 0.48

    asyncio.run(story())


def test_it_is_renewed_by_one_request_until_somebody_else_writes_it():
    server = Server()

    async def story():
        first = contender(server, "a")
        assert await first.try_acquire()
        read, reads = server.get, []

        async def noted(path):
            reads.append(path)
            return await read(path)

        server.get = noted
        for _ in range(3):
            assert await first.try_acquire()
        assert reads == []
        server.lease["metadata"]["resourceVersion"] = "77"  # a person has put a label on it
        assert await first.try_acquire()
        assert len(reads) == 1
        server.lease["spec"]["holderIdentity"] = "b"
        server.lease["metadata"]["resourceVersion"] = "99"
        assert not await first.try_acquire()

    asyncio.run(story())


def test_a_holder_whose_request_hangs_stops_before_another_may_take_it():
    """The client's own time-out is longer than the lease: a partition that swallows packets must not outlast it."""
    server = Server()

    async def story():
        first = contender(server, "a", seconds=0.6)
        await first.try_acquire()
        taken = asyncio.Event()

        async def nothing(*_):
            taken.set()
            await asyncio.Event().wait()

        server.replace = nothing
        await asyncio.wait_for(first.hold(), timeout=10)
        assert taken.is_set(), "it asked, and was not answered"

    asyncio.run(story())


def test_one_that_is_not_renewed_is_taken_over_after_its_length_as_seen_here():
    """By its own patience, since clocks of nodes differ: it waits until the lease has not changed for a whole length."""
    server, clock = Server(), Clock()

    async def story():
        await contender(server, "a", seconds=0.3).try_acquire()
        second = contender(server, "b", seconds=0.3, clock=clock)
        assert not await second.try_acquire()
        clock.now += timedelta(hours=1)
        taken = False
        for _ in range(20):
            await asyncio.sleep(0.1)
            taken = taken or await second.try_acquire()
        assert taken

    asyncio.run(story())
