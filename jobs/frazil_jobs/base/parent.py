"""Processes that end when their parent does, however it ends.

The kernel sends the signal (Linux, `prctl(PR_SET_PDEATHSIG)`); a thread that watches the parent's id does the same where
there is no such call. A killed `frazil run` therefore leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

PARENT_VARIABLE = "FRAZIL_PARENT_PID"
"""The process that `start` was called by: the child checks that it's still its parent."""


def _request_signal(number: int) -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def die_with_parent(*, signal_number: int = signal.SIGKILL) -> None:
    """End this process when the one that called `start` for it ends. Call it first thing in `main`, from the main thread.

    The signal is lost if the parent died before this call, so its id, which `start` hands over, is compared too. A process
    that was started otherwise (in a container, by hand) has nobody to end with.
    """
    expected = int(os.environ.get(PARENT_VARIABLE, "0"))
    if not expected:
        return
    _request_signal(signal_number)
    if os.getppid() != expected:
        os.kill(os.getpid(), signal_number)
    if _LIBC is None:
        threading.Thread(target=_watch, args=(expected, signal_number), daemon=True, name="parent-watch").start()


def _watch(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), number)


def start(
    arguments: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
    cwd: Path | None = None,
    on_parent_death: int = signal.SIGKILL,
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one. Call it from a thread that lives as long as the process should.

    The kernel ties the child to the *thread* that forked it. `env` is the child's whole environment.
    `new_session` keeps the terminal's Ctrl-C from it: who supervises decides in which order its children end.
    """
    return subprocess.Popen(
        [str(argument) for argument in arguments],
        env={**env, PARENT_VARIABLE: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        start_new_session=new_session,
        preexec_fn=lambda: _request_signal(on_parent_death),
    )
