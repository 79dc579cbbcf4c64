"""What a process said last: the part of its log that a person wants to see when it failed."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

MOST_LINES = 60
_TAIL_BYTES = 1 << 18


def last_words(log: Path) -> str:
    """The text after the last structured line of a log (a message, a traceback), else what the last error line says."""
    lines = tail(log)
    plain: list[str] = []
    for line in reversed(lines):
        if _structured(line) is not None:
            break
        plain.append(line)
    text = "\n".join(reversed(plain[:MOST_LINES])).strip()
    if text:
        return text
    errors = [entry for line in lines if (entry := _structured(line)) and entry.get("level") in ("error", "critical")]
    return _said(errors[-1]) if errors else ""


def tail(log: Path) -> Sequence[str]:
    """The last lines of a file, whatever its size; none when there is no file."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        try:
            return f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"was ended by signal {-code}"
    return f"ended with code {code}"


def _structured(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "event" in found else None


def _said(entry: dict[str, object]) -> str:
    parts = [str(entry["event"])]
    if error := entry.get("error"):
        parts.append(str(error))
    text = ": ".join(parts)
    return f"{text}\n{entry['exception']}" if entry.get("exception") else text
