"""Structured logs: one JSON object a line in a pod, readable lines on a terminal. FRAZIL_LOG=json|console forces one."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, TextIO, cast

import structlog

LEVEL_VARIABLE = "FRAZIL_LOG_LEVEL"
FORMAT_VARIABLE = "FRAZIL_LOG"


class _Stderr:
    """Whatever stderr is when a line is written: loggers are kept, and a caller may have replaced it since."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure(component: str, **context: Any) -> None:
    """Send every log of this process to stderr with `component` and `context` (job, shard, rank, attempt) on each line."""
    stderr = cast("TextIO", _Stderr())
    level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL_VARIABLE, "INFO").upper(), logging.INFO)
    wants_console = os.environ.get(FORMAT_VARIABLE, "console" if sys.stderr.isatty() else "json") == "console"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[Any] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if wants_console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(component=component, **context)
    logging.basicConfig(level=max(level, logging.WARNING), stream=stderr, force=True)


def get_logger(name: str | None = None) -> Any:
    """A logger that takes an event and named values: `log.info("stored", key=key, size=size)`."""
    # Not `.bind()`: that would take over the settings of this moment, and modules make their loggers before `configure`.
    return structlog.get_logger() if name is None else structlog.get_logger(source=name)
