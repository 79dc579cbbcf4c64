"""Sets of indices as Kubernetes writes them: "0-11,13"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

LONGEST: Final = 4000
"""Characters of a set in a status."""
MORE: Final = ",…"


def parse(text: str) -> list[tuple[int, int]]:
    """Ranges (first, last), ascending. What is not written (…) is left out."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            found.append((int(first), int(last) if last.isdecimal() else int(first)))
    return sorted(found)


def last(text: str) -> int:
    """The highest index; -1 for none."""
    return max((last for _, last in parse(text)), default=-1)


def count(text: str) -> int:
    """How many indices a text names."""
    return sum(last - first + 1 for first, last in parse(text))


def contains(text: str, index: int) -> bool:
    """Whether a text names an index."""
    return any(first <= index <= last for first, last in parse(text))


def union(one: str, other: str) -> str:
    """The text of two sets together."""
    return ",".join(text for text in (one, other) if text)


def gaps(text: str, total: int) -> Iterator[int]:
    """The indices below `total` that a text does not name, ascending."""
    at = 0
    for first, last in parse(text):
        yield from range(at, min(first, total))
        at = max(at, last + 1)
    yield from range(at, total)


def add(text: str, indices: Iterable[int]) -> str:
    """The text of a set with more indices in it."""
    spans = sorted([*parse(text), *((index, index) for index in indices)])
    joined: list[list[int]] = []
    for first, last in spans:
        if joined and first <= joined[-1][1] + 1:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in joined)


def shortened(text: str) -> str:
    """The text, cut at a range so that a status stays small."""
    if len(text) <= LONGEST:
        return text
    return text[:LONGEST].rpartition(",")[0] + MORE
