"""Rank processes that tests share: real processes in a real gloo group, kept warm, because imports cost seconds.

`pool = RankPool.of(2)` gives the session's pool of two; `pool.run("rank_work:generate", name="sdxl")` calls that function of
`tests/support/rank_work.py` on every rank and returns what each returned, by rank. A rank that raises makes `run` raise
RanksFailed with every rank's error; unless all raised alike, the next run starts fresh processes, since the group may be
broken. The processes end with the one that started them, however it ends.
"""

from __future__ import annotations

import atexit
import importlib
import os
import pickle
import sys
import tempfile
import traceback
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from subprocess import Popen
from time import monotonic
from typing import Any, ClassVar

from frazil_jobs.base import parent

TIMEOUT_SECONDS = 60
"""Of the default process group; the functions that run may make groups with shorter ones."""


class RanksFailed(Exception):
    """At least one rank raised. `errors` holds each rank's exception, None where it returned."""

    def __init__(self, errors: list[BaseException | None], traces: list[str]) -> None:
        super().__init__("\n".join(f"rank {rank}:\n{trace}" for rank, trace in enumerate(traces) if trace))
        self.errors = errors


@dataclass(frozen=True)
class _Answer:
    value: Any = None
    error: BaseException | None = None
    trace: str = ""


class RankPool:
    """Rank processes of one world size, started at the first run."""

    _pools: ClassVar[dict[int, RankPool]] = {}

    def __init__(self, size: int) -> None:
        self.size = size
        self._processes: list[Popen[bytes]] = []
        self._connections: list[Connection] = []

    @classmethod
    def of(cls, size: int) -> RankPool:
        """The pool of this test process with `size` ranks."""
        return cls._pools.setdefault(size, cls(size))

    def run(self, function: str, *, timeout: float = 240.0, **arguments: Any) -> list[Any]:
        """What `function` ("module:name") returns on each rank. Raises RanksFailed, or TimeoutError."""
        if not self._processes:
            self._start()
        for connection in self._connections:
            connection.send_bytes(pickle.dumps((function, arguments)))
        answers: dict[int, _Answer] = {}
        deadline = monotonic() + timeout
        while len(answers) < self.size:
            missing = [self._connections[rank] for rank in range(self.size) if rank not in answers]
            ready = wait(missing, timeout=max(0.0, deadline - monotonic()))
            if not ready:
                self.stop()
                raise TimeoutError(
                    f"{function} did not end on {len(missing)} of {self.size} ranks in {timeout} s; the others: {answers}"
                )
            for connection in ready:
                answers[self._connections.index(connection)] = _receive(connection)
        ordered = [answers[rank] for rank in range(self.size)]
        if any(answer.error for answer in ordered):
            if len({type(answer.error) for answer in ordered}) > 1:
                self.stop()  # one rank left the others in the middle of something
            raise RanksFailed([answer.error for answer in ordered], [answer.trace for answer in ordered])
        return [answer.value for answer in ordered]

    def stop(self) -> None:
        """End the processes."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.kill()
            process.wait()
        self._connections, self._processes = [], []

    def _start(self) -> None:
        folder = tempfile.mkdtemp(prefix="frazil-ranks-")
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with Listener(f"{folder}/socket", "AF_UNIX") as listener:
            self._processes = [
                parent.start(
                    [sys.executable, "-c", "import ranks; ranks.rank_main()", folder, str(rank), str(self.size)],
                    env=env,
                )
                for rank in range(self.size)
            ]
            connections = [listener.accept() for _ in range(self.size)]
        by_rank = {connection.recv(): connection for connection in connections}
        self._connections = [by_rank[rank] for rank in range(self.size)]


@atexit.register
def _stop_all() -> None:
    for pool in RankPool._pools.values():
        pool.stop()


def _receive(connection: Connection) -> _Answer:
    try:
        return pickle.loads(connection.recv_bytes())
    except (EOFError, ConnectionResetError):
        return _Answer(error=EOFError("the rank's process ended"), trace="the rank's process ended")


def rank_main() -> None:
    """What a rank's process runs."""
    parent.die_with_parent()
    folder, rank, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    connection = Client(f"{folder}/socket", "AF_UNIX")
    connection.send(rank)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )
    while True:
        try:
            function, arguments = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(pickle.dumps(_call(function, arguments)))


def _call(function: str, arguments: dict[str, Any]) -> _Answer:
    module, _, name = function.partition(":")
    try:
        answer = _Answer(value=getattr(importlib.import_module(module), name)(**arguments))
        pickle.dumps(answer)
        return answer
    except Exception as error:
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(repr(error))
        return _Answer(error=error, trace=trace)
