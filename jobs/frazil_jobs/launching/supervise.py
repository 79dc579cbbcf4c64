"""Watches the ranks of one node: the first that fails decides, and none is left behind.

Knows nothing of what ranks do. `failures.choose` says what a failure means; here are the processes and the signals.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from frazil_jobs.base.exits import OK, TEMPFAIL
from frazil_jobs.base.log import get_logger
from frazil_jobs.launching.failures import Ended, Failure, Verdict, choose

POLL_SECONDS: Final = 0.05
SETTLE_SECONDS: Final = 1.5
"""After a first failure, how long the other ranks have to say what they saw before they're taken down."""
TERM_SECONDS: Final = 4.0
"""Between SIGTERM and SIGKILL of a rank that is taken down."""
KILL_SECONDS: Final = 20.0
"""How long a killed process may take to be gone (a driver may hold it)."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Words:
    """How a launcher speaks of its work."""

    before: str
    """Of ranks that were stopped before they answered signals."""
    stopping: str
    """What happens after a request to stop."""
    dropped: str
    """What is lost when the grace period is over."""
    timeout_field: str
    """Where the time-out of collectives is set."""


@dataclass
class StopRequest:
    """Set by SIGTERM and SIGINT; says when the time to end in order is over."""

    grace_seconds: float
    deadline: float | None = field(default=None, init=False)

    def request(self, *_: object) -> None:
        """Ask to stop. A second request changes nothing."""
        if self.deadline is None:
            self.deadline = time.monotonic() + self.grace_seconds

    def requested(self) -> bool:
        """True once somebody asked."""
        return self.deadline is not None

    def expired(self) -> bool:
        """True when the grace period is over."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def install(self) -> None:
        """Answer SIGTERM and SIGINT with a request, from now on."""
        signal.signal(signal.SIGTERM, self.request)
        signal.signal(signal.SIGINT, self.request)


@dataclass
class RankProcess:
    """One rank and its process."""

    rank: int
    process: subprocess.Popen[bytes]
    ended: Ended | None = None

    def look(self) -> None:
        """Note the process's end once."""
        if self.ended is None and (code := self.process.poll()) is not None:
            self.ended = Ended(rank=self.rank, pid=self.process.pid, code=code, seen_ns=time.monotonic_ns())

    def send(self, number: int) -> None:
        """Send a signal to a process that still runs."""
        if self.ended is None:
            self.process.send_signal(number)


def supervise(
    ranks: Sequence[RankProcess],
    run_folder: Path,
    stop: StopRequest,
    words: Words,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    term_seconds: float = TERM_SECONDS,
) -> Verdict:
    """Wait until all ranks have ended with 0, one has failed, or the grace period is over. No rank is left behind."""
    forwarded = False
    try:
        while True:
            for rank in ranks:
                rank.look()
            ended = [rank.ended for rank in ranks if rank.ended is not None]
            # Asked to stop, each rank ends in its own time: the leader still writes when the others have gone.
            in_order = (OK, TEMPFAIL) if forwarded else (OK,)
            all_ended = len(ended) == len(ranks)
            if any(end.code not in in_order for end in ended) or (all_ended and any(end.code for end in ended)):
                verdict = _first_failure(ranks, run_folder, settle_seconds, words)
                if forwarded and verdict.killed_by == signal.SIGTERM:  # it hadn't come to answering signals
                    return Verdict(exit_code=TEMPFAIL, text=words.before)
                return verdict
            if all_ended:
                return Verdict(exit_code=OK, text="")
            if stop.requested() and not forwarded:
                forwarded = True
                log.info(f"asked to stop: {words.stopping}", grace_seconds=stop.grace_seconds)
                for rank in ranks:
                    rank.send(signal.SIGTERM)
            if stop.expired():
                return Verdict(exit_code=TEMPFAIL, text=f"stopped: the grace period is over, {words.dropped}")
            time.sleep(POLL_SECONDS)
    finally:
        take_down(ranks, term_seconds)


def _first_failure(ranks: Sequence[RankProcess], run_folder: Path, settle_seconds: float, words: Words) -> Verdict:
    """Give the others a moment to end by themselves: the one seen first isn't always the one that failed first."""
    _wait(ranks, settle_seconds)
    ended = [rank.ended for rank in ranks if rank.ended is not None and rank.ended.code != OK]
    failures = {end.rank: failure for end in ended if (failure := Failure.read(run_folder, end.rank)) is not None}
    return choose(ended, failures, timeout_field=words.timeout_field)


def take_down(ranks: Sequence[RankProcess], term_seconds: float) -> None:
    """End every rank that still runs: SIGTERM, then SIGKILL."""
    for number, seconds in ((signal.SIGTERM, term_seconds), (signal.SIGKILL, KILL_SECONDS)):
        for rank in ranks:
            rank.send(number)
        if _wait(ranks, seconds):
            return
    left = [rank.process.pid for rank in ranks if rank.ended is None]
    log.error("processes that SIGKILL did not end", processes=left)


def _wait(ranks: Sequence[RankProcess], seconds: float) -> bool:
    """True as soon as all ranks have ended, False after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        for rank in ranks:
            rank.look()
        if all(rank.ended is not None for rank in ranks):
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_SECONDS)
