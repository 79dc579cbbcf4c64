"""Times actions where they run: the CPU's clock, or events of a GPU's stream, which cost the host nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from frazil_jobs.training.planning.actions import Action


@dataclass(frozen=True)
class Timed:
    """One action of one batch on this rank."""

    action: Action
    batch: int
    """Counted from the clock's last `collect`."""
    start: float
    """Seconds: on a CPU of the machine's monotonic clock, on a GPU since the batch's first action."""
    seconds: float


class ActionClock:
    """One a rank, shared by its stages."""

    def __init__(self, device: torch.device) -> None:
        self._events = device.type == "cuda"
        self._batch = -1
        self._marks: list[tuple[int, Action, _Mark, _Mark]] = []

    def begin_batch(self) -> None:
        """What follows belongs to a new batch."""
        self._batch += 1

    @contextmanager
    def timed(self, action: Action) -> Iterator[None]:
        """Time what is inside. Several times for the same action of a batch are added."""
        begin = self._mark()
        yield
        self._marks.append((self._batch, action, begin, self._mark()))

    def collect(self) -> list[Timed]:
        """What was timed since the last call, in order; waits for the device where there is one."""
        marks, self._marks, self._batch = self._marks, [], -1
        if not marks:
            return []
        if self._events:
            torch.cuda.synchronize()
        first: dict[int, _Mark] = {}
        timed: dict[tuple[int, Action], Timed] = {}
        for batch, action, begin, end in marks:
            origin = first.setdefault(batch, begin)
            seconds = _between(begin, end)
            if (known := timed.get((batch, action))) is not None:
                timed[batch, action] = Timed(action, batch, known.start, known.seconds + seconds)
            else:
                start = begin if isinstance(begin, float) else _between(origin, begin)
                timed[batch, action] = Timed(action, batch, start, seconds)
        return list(timed.values())

    def _mark(self) -> _Mark:
        if not self._events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


_Mark = float | torch.cuda.Event


def _between(begin: _Mark, end: _Mark) -> float:
    if isinstance(begin, float) and isinstance(end, float):
        return end - begin
    assert isinstance(begin, torch.cuda.Event)
    assert isinstance(end, torch.cuda.Event)
    return float(begin.elapsed_time(end)) / 1000
