"""Supervises the processes of a run. `decide` says what happens to one that died; `Supervisor` is the thin edge.

A process is data (`Component`). What must keep running (Redis, the upload workers) starts again after a growing pause;
what has a result (fetch, compute) ends with it. All write into log files; none hears the terminal's Ctrl-C, since the
order in which they end is decided here. All of them die with this process, however it dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frazil_jobs.base import parent
from frazil_jobs.base.exits import BadConfiguration

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
HEALTHY_SECONDS = 30.0
"""A process that lived this long is counted from the start again when it dies."""


@dataclass(frozen=True)
class Component:
    """One process, as data. `restarts` is how often in a row it's started again when it ends by itself."""

    name: str
    arguments: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    log: Path
    restarts: int = 0
    one_shot: bool = False
    """Whether it's meant to end: exit 0 is then its success, and 65 or 78 are final."""


@dataclass(frozen=True)
class Death:
    """The end of one life of a process: `code` as Popen gives it (negative: the signal)."""

    at: float
    code: int
    lived: float


@dataclass(frozen=True)
class StartAt:
    """Start it again at this time (monotonic seconds)."""

    at: float


@dataclass(frozen=True)
class Finished:
    """It's done."""


@dataclass(frozen=True)
class GivenUp:
    """It has died too often, or for good."""

    code: int


Decision = StartAt | Finished | GivenUp


def decide(component: Component, deaths: Sequence[Death]) -> Decision:
    """What happens after the last of `deaths`: the newest run of short lives is what counts."""
    last = deaths[-1]
    if component.one_shot and last.code == 0:
        return Finished()
    if component.one_shot and last.code in (65, 78):
        return GivenUp(last.code)
    in_a_row = 0
    for death in reversed(deaths):
        if death.lived >= HEALTHY_SECONDS and not component.one_shot and in_a_row:
            break
        in_a_row += 1
    if in_a_row > component.restarts:
        return GivenUp(last.code)
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (in_a_row - 1))
    return StartAt(last.at + pause)


@dataclass
class _Life:
    component: Component
    process: subprocess.Popen[bytes] | None = None
    born: float = 0.0
    deaths: list[Death] = field(default_factory=list)
    start_at: float | None = None
    outcome: Finished | GivenUp | None = None


class Supervisor:
    """Starts, watches and ends processes. Use it from the thread that lives as long as they should: the main one."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}

    def start(self, component: Component) -> None:
        """Start a process. A name that is already there must have ended."""
        assert not self.running(component.name), component.name
        life = _Life(component)
        self._lives[component.name] = life
        component.log.parent.mkdir(parents=True, exist_ok=True)
        component.log.write_bytes(b"")
        self._spawn(life)

    def _spawn(self, life: _Life) -> None:
        life.start_at = None
        life.born = time.monotonic()
        with life.component.log.open("ab") as log:
            try:
                life.process = parent.start(
                    life.component.arguments,
                    env=life.component.env,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    new_session=True,
                )
            except OSError as error:
                raise BadConfiguration(f"{life.component.name} can't be started: {error}") from error

    def poll(self) -> list[str]:
        """Reap what ended and start again what is due. Returns the names of those that ended since the last call."""
        ended = []
        now = time.monotonic()
        for life in self._lives.values():
            if life.process is not None and (code := life.process.poll()) is not None:
                self._sweep(life.process.pid)
                life.process = None
                life.deaths.append(Death(at=now, code=code, lived=now - life.born))
                ended.append(life.component.name)
                decision = decide(life.component, life.deaths)
                if isinstance(decision, StartAt):
                    life.start_at = decision.at
                else:
                    life.outcome = decision
            if life.process is None and life.start_at is not None and now >= life.start_at:
                self._spawn(life)
        return ended

    def running(self, name: str) -> bool:
        """Whether the process is there, or will be started again."""
        life = self._lives.get(name)
        return life is not None and (life.process is not None or life.start_at is not None)

    def alive(self, name: str) -> bool:
        """Whether the process is there now."""
        life = self._lives.get(name)
        return life is not None and life.process is not None

    def pid(self, name: str) -> int:
        """The process that runs now."""
        process = self._lives[name].process
        assert process is not None, f"{name} does not run"
        return process.pid

    def outcome(self, name: str) -> Finished | GivenUp | None:
        """How it ended; None while it runs or will be started again."""
        life = self._lives.get(name)
        return life.outcome if life is not None else None

    def deaths(self, name: str) -> int:
        """How often it died so far."""
        return len(self._lives[name].deaths)

    def component(self, name: str) -> Component:
        """The process as data."""
        return self._lives[name].component

    def names(self) -> list[str]:
        """All that were ever started, in that order."""
        return list(self._lives)

    def terminate(self, names: Iterable[str]) -> None:
        """Ask processes to end (SIGTERM), and start them no more."""
        for name in names:
            if (life := self._lives.get(name)) is None:
                continue
            life.start_at = None
            if life.process is not None:
                life.component = _no_restarts(life.component)
                with contextlib.suppress(ProcessLookupError):
                    life.process.terminate()

    def stop(self, names: Iterable[str], *, seconds: float) -> None:
        """Ask processes to end, wait, then end those that did not."""
        listed = list(names)
        self.terminate(listed)
        end = time.monotonic() + seconds
        while any(self.alive(name) for name in listed) and time.monotonic() < end:
            self.poll()
            time.sleep(0.02)
        self.kill(listed)

    def kill(self, names: Iterable[str] | None = None) -> None:
        """End processes and all that they started, at once."""
        for name in list(names) if names is not None else self.names():
            if (life := self._lives.get(name)) is None:
                continue
            life.start_at = None
            if life.process is not None:
                self._sweep(life.process.pid)
                life.process.wait()
                life.process = None

    @staticmethod
    def _sweep(group: int) -> None:
        """End what is left of a process's own group: a worker that was killed leaves its children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _no_restarts(component: Component) -> Component:
    return Component(
        name=component.name,
        arguments=component.arguments,
        env=component.env,
        log=component.log,
        restarts=0,
        one_shot=component.one_shot,
    )
