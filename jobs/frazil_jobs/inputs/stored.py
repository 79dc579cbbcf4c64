"""What the store already holds of a pod's shards, so that a restarted shard makes only what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from frazil_jobs.api import naming
from frazil_jobs.api.generationjob import OutputFormat
from frazil_jobs.inputs.prompts import Span
from frazil_jobs.stores import ObjectStore

DIGITS = 6
"""Of a prompt index in a key."""
MAX_LISTINGS = 12
"""Calls for one run of shards, of up to a thousand keys each, before a coarser listing is taken."""


def stored_keys(
    store: ObjectStore, *, prefix: str, output_format: OutputFormat, spans: Sequence[Span]
) -> dict[str, str | None]:
    """Keys below the job's `prefix` that belong to prompts of `spans`, with their sha256 where listing tells it."""
    folders = {
        naming.image_key(0, 0, output_format).partition("/")[0],
        naming.thumbnail_key(0, 0).partition("/")[0],
    }
    found: dict[str, str | None] = {}
    for first, count in joined(spans):
        for digits in blocks(first, count):
            for folder in sorted(folders):
                for info in store.list(f"{prefix}/{folder}/{digits}"):
                    key = info.key.removeprefix(f"{prefix}/")
                    index = key.removeprefix(f"{folder}/")[:DIGITS]
                    if index.isdecimal() and first <= int(index) < first + count:
                        found[key] = info.sha256
    return found


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same prompts as fewer spans: those that touch become one."""
    result: list[Span] = []
    for first, count in sorted(spans):
        if result and first <= sum(result[-1]):
            start, length = result[-1]
            result[-1] = (start, max(length, first + count - start))
        elif count:
            result.append((first, count))
    return result


def blocks(first: int, count: int) -> Iterator[str]:
    """The leading digits that cover prompts `first` to `first + count - 1`: few, and little beside them."""
    last = first + count - 1
    for dropped in range(DIGITS + 1):
        low, high = first // 10**dropped, last // 10**dropped
        if high - low < MAX_LISTINGS:
            width = DIGITS - dropped
            yield from (f"{value:0{width}d}" if width else "" for value in range(low, high + 1))
            return
