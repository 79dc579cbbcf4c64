"""A keyed work queue, as controllers have it.

A key is worked on by one worker at a time, waits once however often it's added, comes back when it was added meanwhile, and
backs off on its own when it fails.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 60.0


class WorkQueue(Generic[K]):
    """Keys that wait, in order; all from one event loop."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._ready: deque[K] = deque()
        self._added_at: dict[K, float] = {}
        self._working: dict[K, float] = {}
        self._dirty: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._timers: dict[K, tuple[float, asyncio.TimerHandle]] = {}
        self._wake = asyncio.Event()
        self._taken_at = clock()

    def add(self, key: K) -> None:
        """Work on it soon; after the worker that has it now, if one has."""
        if key in self._working:
            self._dirty.setdefault(key, self._clock())
        elif key not in self._added_at:
            self._added_at[key] = self._clock()
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on it after so many seconds, unless it's due earlier anyway."""
        due = self._clock() + seconds
        waiting = self._timers.get(key)
        if waiting is not None:
            if waiting[0] <= due:
                return
            waiting[1].cancel()
        handle = asyncio.get_running_loop().call_later(seconds, self._due, key)
        self._timers[key] = (due, handle)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def get(self) -> tuple[K, float]:
        """The next key, and since when it waits. Give it back with `done`."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        added_at = self._added_at.pop(key)
        self._taken_at = self._working[key] = self._clock()
        return key, added_at

    def done(self, key: K) -> None:
        """The worker has finished with it, well or not."""
        self._working.pop(key, None)
        since = self._dirty.pop(key, None)
        if since is not None and key not in self._added_at:
            self._added_at[key] = since
            self._ready.append(key)
            self._wake.set()

    def retry(self, key: K) -> float:
        """Come back to it after a pause that doubles with each failure; the pause, in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 30), LONGEST_PAUSE_SECONDS)
        pause *= 0.75 + 0.5 * self._jitter()
        self.add_after(key, pause)
        return pause

    def forget(self, key: K) -> None:
        """It went well: the next failure is the first again."""
        self._failures.pop(key, None)

    def drop(self, key: K) -> None:
        """There is nothing left to do about it, ever."""
        self.forget(key)
        waiting = self._timers.pop(key, None)
        if waiting is not None:
            waiting[1].cancel()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def oldest_seconds(self) -> float:
        """How long the key that is worked on longest has been."""
        now = self._clock()
        return max((now - since for since in self._working.values()), default=0.0)

    @property
    def stalled_seconds(self) -> float:
        """How long keys have waited of which nobody took one. (A key alone may wait long, behind ten thousand others.)"""
        return self._clock() - max(self._taken_at, self._added_at[self._ready[0]]) if self._ready else 0.0
