"""Calls in threads, with few of them waiting: a list of a million files is never held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_AHEAD: Final = 4
"""Calls that wait for a thread, for each thread."""


def each(call: Callable[[T], R], items: Iterable[T], *, threads: int) -> Iterator[R]:
    """What `call` returns of all items, as it comes. Raises the first error, once the calls in hand are ended."""
    remaining = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        running: set[Future[R]] = set()
        try:
            while True:
                more = islice(remaining, threads * _AHEAD - len(running))
                running |= {pool.submit(call, one) for one in more}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BaseException:
            for future in running:
                future.cancel()
            raise
