"""Ctrl-C, SIGTERM and a closed terminal: the first one ends a run in order, the second one at once."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """Somebody asked to stop."""


@dataclass
class Interrupts:
    """Counts requests to stop while it's entered."""

    _asked: int = 0
    _asked_before_ending: int | None = None
    _handlers: dict[signal.Signals, Any] = field(default_factory=dict)

    def __enter__(self) -> Interrupts:
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked += 1

    def check(self) -> None:
        """Raise Interrupted when somebody asked."""
        if self._asked:
            raise Interrupted

    def begin_ending(self) -> None:
        """From here on one more request ends the run at once, whatever began the ending."""
        if self._asked_before_ending is None:
            self._asked_before_ending = min(self._asked, 1)

    @property
    def at_once(self) -> bool:
        """Whether somebody asked while the run was ending already."""
        return self._asked_before_ending is not None and self._asked > self._asked_before_ending
