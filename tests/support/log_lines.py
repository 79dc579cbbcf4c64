"""What is said in the log, as the lines of a pod have it: the words of a call with those that were bound around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import structlog

from frazil_operator.engine import control, progress, watchdog, worker, writer

ABOUT = {"job", "namespace", "kind", "attempt"}


class LogLines(list[dict[str, Any]]):
    """A logger that keeps its lines."""

    def __getattr__(self, level: str) -> Callable[..., None]:
        def say(event: str, **words: Any) -> None:
            self.append({**structlog.contextvars.get_contextvars(), "event": event, **words})

        return say

    def said(self, event: str) -> dict[str, Any]:
        """The last line that begins so."""
        return [line for line in self if line["event"].startswith(event)][-1]


def log_lines(monkeypatch: pytest.MonkeyPatch) -> LogLines:
    """All that the parts of the operator that know jobs say from now on."""
    lines = LogLines()
    for part in (control, progress, watchdog, worker, writer):
        monkeypatch.setattr(part, "log", lines)
    return lines
