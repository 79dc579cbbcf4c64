"""Which rank failed first, and what is told about it: once, last.

A rank that raises leaves an error file; the others then fail in a collective, which says nothing new. The rule of
`choose` is a function of those files and of how the processes ended. Loads no torch.
"""

from __future__ import annotations

import json
import signal
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from frazil_jobs.base.exits import FAILED, TEMPFAIL, FrazilError, exit_code_of
from frazil_jobs.base.files import write_atomically

_COLLECTIVE_TYPES: Final = ("DistBackendError", "DistNetworkError", "DistStoreError", "DistError")
_COLLECTIVE_WORDS: Final = ("gloo", "NCCL", "Connection closed by peer", "Timed out waiting", "Broken pipe")
_TRY_AGAIN_SIGNALS: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""From outside: the kernel short of memory, a person, the node going down. Others are crashes."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What one rank says of its own end."""

    rank: int
    raised_ns: int
    """CLOCK_MONOTONIC, which all processes of a node share."""
    exit_code: int
    text: str
    """One message for an error that a person can act on, a traceback for the others."""
    secondary: bool
    """Raised by a collective: another rank's end is the likely cause."""

    def write(self, run: Path) -> None:
        """Leave it where the launcher looks."""
        write_atomically(error_path(run, self.rank), json.dumps(asdict(self)))

    @classmethod
    def read(cls, run: Path, rank: int) -> Failure | None:
        """What `rank` left, if anything."""
        try:
            return cls(**json.loads(error_path(run, rank).read_bytes()))
        except FileNotFoundError:
            return None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one rank's process ended, as its parent sees it."""

    rank: int
    pid: int
    code: int
    """As subprocess gives it: negative for a signal."""
    seen_ns: int


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the launcher ends with."""

    exit_code: int
    text: str
    killed_by: int | None = None
    """The signal, where one ended the rank that decides."""


def error_path(run: Path, rank: int) -> Path:
    """The error file of one rank."""
    return run / f"error-{rank}.json"


def failure_of(error: BaseException, *, rank: int, raised_ns: int | None = None) -> Failure:
    """Describe `error` for the launcher."""
    collective = not isinstance(error, FrazilError) and is_collective(error)
    return Failure(
        rank=rank,
        raised_ns=time.monotonic_ns() if raised_ns is None else raised_ns,
        exit_code=TEMPFAIL if collective else exit_code_of(error),
        text=str(error) if isinstance(error, FrazilError) else "".join(traceback.format_exception(error)).rstrip(),
        secondary=collective,
    )


def is_collective(error: BaseException) -> bool:
    """True when an error comes out of torch.distributed: the rank lost another one, or waited for it too long."""
    if not isinstance(error, RuntimeError):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return (
        type(error).__name__ in _COLLECTIVE_TYPES
        or any("torch/distributed/" in frame.filename for frame in frames[-4:])
        or any(word in str(error) for word in _COLLECTIVE_WORDS)
    )


def choose(ended: Sequence[Ended], failures: Mapping[int, Failure], *, timeout_field: str = "its time-out") -> Verdict:
    """The rank that decides, among those that ended by themselves with another code than 0.

    A rank killed by a signal comes before all others: what the others say then follows from it. SIGABRT is left out:
    the collective library itself aborts a rank that waited too long. Next is the first error that no collective raised.
    """
    killed = [end for end in ended if end.code < 0 and end.code != -signal.SIGABRT]
    if killed:
        return _of_signal(min(killed, key=lambda end: end.seen_ns))
    own = [failures[end.rank] for end in ended if end.rank in failures and not failures[end.rank].secondary]
    if own:
        first = min(own, key=lambda failure: failure.raised_ns)
        return Verdict(
            exit_code=first.exit_code,
            text=_headed(first, alone=len(ended) == 1 or len({failure.text for failure in own}) == 1 < len(own)),
        )
    silent = [end for end in ended if end.rank not in failures]
    if silent:
        end = min(silent, key=lambda end: end.seen_ns)
        if end.code < 0:
            return _of_signal(end)
        return Verdict(exit_code=end.code, text=f"rank {end.rank} (process {end.pid}) ended with code {end.code}")
    first = min((failures[end.rank] for end in ended), key=lambda failure: failure.raised_ns)
    return Verdict(
        exit_code=first.exit_code,
        text=f"{first.text}\nrank {first.rank} lost contact with another rank, or waited for it longer than {timeout_field}",
    )


def _headed(failure: Failure, *, alone: bool) -> str:
    """With the rank, unless it is the only one or all say the same."""
    if "Traceback" in failure.text:
        return f"rank {failure.rank} failed:\n{failure.text}"
    return failure.text if alone else f"rank {failure.rank}: {failure.text}"


def _of_signal(end: Ended) -> Verdict:
    name = signal.Signals(-end.code).name
    causes = {
        signal.SIGKILL: ": the usual cause is a lack of memory",
        signal.SIGBUS: ": the usual cause is a lack of shared memory (spec.workers.sharedMemory)",
    }
    return Verdict(
        exit_code=TEMPFAIL if -end.code in _TRY_AGAIN_SIGNALS else FAILED,
        killed_by=-end.code,
        text=f"rank {end.rank} (process {end.pid}) was killed by {name}{causes.get(signal.Signals(-end.code), '')}",
    )
