"""Stopping in order: each rank may be asked by a signal at another moment, so they agree at the start of each batch.

The agreement is one all-reduce of two small integers on the CPU. It is also where ranks wait for one that still writes
what it made (the spool may be full for as long as a store is down): in short rounds, so that no collective runs into
its time-out. Loads torch only when it agrees.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Final

ROUND_SECONDS: Final = 1.0


class StopFlag:
    """Set by SIGTERM and SIGINT: the batch in hand is finished, no other is begun."""

    def __init__(self) -> None:
        self._asked = False

    def install(self) -> None:
        """Answer SIGTERM and SIGINT with the flag, from now on."""
        signal.signal(signal.SIGTERM, self.ask)
        signal.signal(signal.SIGINT, self.ask)

    def ask(self, *_: object) -> None:
        """Ask this rank to stop."""
        self._asked = True

    def asked(self) -> bool:
        """True once somebody asked."""
        return self._asked


def agree_to_go_on(flag: StopFlag, *, ready: Callable[[float], bool], group: Any | None) -> bool:
    """Wait until every rank is ready for the next batch. True: begin it. False: some rank was asked to stop.

    `ready(seconds)` waits at most that long for this rank to be ready. `group` is a process group that takes CPU
    tensors; None for a single rank, which agrees with itself.
    """
    while True:
        busy = not ready(ROUND_SECONDS)
        stop, wait = _any_rank((flag.asked(), busy), group)
        if stop:
            return False
        if not wait:
            return True


def _any_rank(values: tuple[bool, bool], group: Any | None) -> tuple[bool, bool]:
    """Each value, or-ed over the ranks."""
    if group is None:
        return values
    import torch
    import torch.distributed as dist

    flags = torch.tensor(values, dtype=torch.int32)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=group)
    first, second = flags.tolist()
    return bool(first), bool(second)
