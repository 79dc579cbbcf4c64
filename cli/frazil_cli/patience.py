"""A store that is away for a short time is asked again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from frazil_jobs.base.exits import TryAgain
from frazil_jobs.stores import StoreUnreachable

T = TypeVar("T")
TRIES: Final = 5
FIRST_PAUSE_SECONDS = 0.5


def patiently(call: Callable[[], T], *, stays: str) -> T:
    """What `call` returns. Raises TryAgain when the store has been away for all tries; `stays` says what is not lost."""
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except StoreUnreachable as error:
            if attempt == TRIES:
                remedy = f"run the same command again: {stays} stays"
                raise TryAgain(error.message, field=error.field, remedy=remedy) from None
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.8, 1.2))  # noqa: S311
    raise AssertionError("the last try returns or raises")
