"""Long-running programs of the cluster: started, found again by another process, and ended for certain."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Processes:
    """The programs of one state folder: a note on each in `pids/`, its output in `logs/`."""

    state: Path

    def start(self, name: str, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
        """Start a program, unless it runs already."""
        if self.running(name):
            return
        log = self.log(name)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(env) if env is not None else None,
                start_new_session=True,
            )
        note = {"pid": process.pid, "started": _started(process.pid)}
        self._note(name).parent.mkdir(parents=True, exist_ok=True)
        self._note(name).write_text(json.dumps(note))

    def log(self, name: str) -> Path:
        """Where a program writes to."""
        return self.state / "logs" / f"{name}.log"

    def log_sizes(self) -> dict[str, int]:
        """How much each program has written so far, in bytes."""
        return {path.stem: path.stat().st_size for path in self.state.glob("logs/*.log")}

    def log_ends(self, *, lines: int, since: Mapping[str, int] | None = None) -> dict[str, str]:
        """The last lines of each program that has written any; with `since` (log_sizes), of what it wrote after that."""
        ends = {}
        for path in sorted(self.state.glob("logs/*.log")):
            with path.open("rb") as file:
                file.seek((since or {}).get(path.stem, 0))
                ends[path.stem] = "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        return {name: end for name, end in ends.items() if end}

    def names(self) -> list[str]:
        """All that were started and not stopped."""
        return sorted(path.stem for path in (self.state / "pids").glob("*.json"))

    def pid(self, name: str) -> int | None:
        """The process of a name, if it's still that one."""
        try:
            note = json.loads(self._note(name).read_text())
        except (OSError, ValueError):
            return None
        pid = int(note["pid"])
        return pid if _started(pid) == note["started"] and note["started"] is not None else None

    def running(self, name: str) -> bool:
        """Whether it runs."""
        return self.pid(name) is not None

    def stop(self, name: str, *, seconds: float = 10.0) -> None:
        """End it and all of its session: politely, then not."""
        pid = self.pid(name)
        if pid is not None:
            for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
                _signal(pid, number)
                if _gone(pid, patience):
                    break
        self._note(name).unlink(missing_ok=True)

    def kill(self, name: str) -> None:
        """End it as a crash would."""
        pid = self.pid(name)
        if pid is not None:
            _signal(pid, signal.SIGKILL)
            _gone(pid, 5.0)
        self._note(name).unlink(missing_ok=True)

    def _note(self, name: str) -> Path:
        return self.state / "pids" / f"{name}.json"


def _started(pid: int) -> str | None:
    """When a process began, in ticks; None when it's gone or a zombie. (A pid alone may be another's by now.)"""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _signal(pid: int, number: int) -> None:
    for send in (lambda: os.killpg(pid, number), lambda: os.kill(pid, number)):
        try:
            send()
        except (ProcessLookupError, PermissionError):
            continue


def _gone(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if _started(pid) is None:
            return True
        time.sleep(0.05)
    return False
