"""Stands in for the trainer until it lands: the life of a gang, without a model.

Every pod is one rank. A step is a sum over all ranks (gloo) that goes into a chain of hashes, so that the end shows whether
each step was done exactly once, in order, from the state that the last one left. Rank 0 stores that state every
`checkpoint.everySteps` steps and commits it; a new attempt goes on from the newest committed one. Whoever loses another rank
ends with 75, and the operator starts the gang again.

Environment: FRAZIL_SPOOL, FRAZIL_NODES, FRAZIL_NODE_RANK, FRAZIL_RENDEZVOUS (host:port), STAND_IN_STEP_SECONDS (0.05).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from frazil_jobs.base import log, parent
from frazil_jobs.base.exits import OK, TEMPFAIL, FrazilError, TryAgain, exit_code_of
from frazil_jobs.inputs.training_task import Checkpoint, TrainingTask
from frazil_jobs.outputs.progress import TrainingProgress
from frazil_jobs.outputs.spool import Spool

STATE: Final = "state.json"
END: Final = "final/state.json"
_COLLECTIVE_SECONDS: Final = 60
_STORED_SECONDS: Final = 600.0
logger = log.get_logger(__name__)


def chain(state: str, step: int, total: int) -> str:
    """The state after a step: the hash of the state before it, the step, and the sum over the ranks."""
    return hashlib.sha256(f"{state} {step} {total}".encode()).hexdigest()


def contribution(seed: int, step: int, rank: int) -> int:
    """What a rank adds in a step: 31 bits that follow from the seed alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()[:4], "big") >> 1


def expected(seed: int, steps: int, ranks: int) -> str:
    """The end of an undisturbed run, computed without one."""
    state = ""
    for step in range(1, steps + 1):
        state = chain(state, step, sum(contribution(seed, step, rank) for rank in range(ranks)))
    return state


class Gang:
    """The ranks of the pods, through torch's process group. One pod needs none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.size = int(environ.get("FRAZIL_NODES") or 1)
        self.rank = int(environ.get("FRAZIL_NODE_RANK") or 0)
        if self.size > 1:
            import torch.distributed as dist

            dist.init_process_group(
                "gloo",
                init_method=f"tcp://{environ['FRAZIL_RENDEZVOUS']}",
                world_size=self.size,
                rank=self.rank,
                timeout=timedelta(seconds=_COLLECTIVE_SECONDS),
            )

    def sum(self, value: int) -> int:
        """The sum over all ranks. Raises TryAgain when one is gone."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        cell = torch.tensor([value], dtype=torch.int64)
        try:
            dist.all_reduce(cell)
        except RuntimeError as error:
            raise TryAgain(f"another rank is gone: {str(error).splitlines()[0]}") from None
        return int(cell.item())


class Run:
    """One attempt on one pod."""

    def __init__(self, task: TrainingTask, spool: Spool, gang: Gang, *, step_seconds: float) -> None:
        self._task = task
        self._spool = spool
        self._gang = gang
        self._seconds = step_seconds
        self._stopped = False
        self.step, self.state = 0, ""
        if task.resume is not None:
            found: dict[str, Any] = json.loads((task.resume / STATE).read_text())
            self.step, self.state = int(found["step"]), str(found["state"])

    def stop(self, *_: object) -> None:
        """End after the step in hand."""
        self._stopped = True

    def go(self) -> None:
        """All steps that are left. Raises TryAgain when told to stop, or when a rank is gone."""
        job = self._task.job.spec
        self._tell(None)
        while self.step < job.steps:
            if self._gang.sum(int(self._stopped)):
                self._commit()
                raise TryAgain("told to stop")
            time.sleep(self._seconds)
            step = self.step + 1
            total = self._gang.sum(contribution(job.seed, step, self._gang.rank))
            self.step, self.state = step, chain(self.state, step, total)
            if step % job.checkpoint.every_steps == 0 or step == job.steps:
                self._commit()
        if self._gang.rank == 0:
            self._store(END, self._text())
        self._gang.sum(0)

    def _commit(self) -> None:
        """Store the state, and mark it only when it is stored."""
        if self._gang.rank == 0 and self.step:
            checkpoint = Checkpoint(self.step, self._task.attempt)
            self._store(f"{checkpoint.folder}/{STATE}", self._text())
            self._store(checkpoint.marker, "{}")
            self._tell(checkpoint)

    def _text(self) -> str:
        return json.dumps({"step": self.step, "state": self.state}, sort_keys=True)

    def _store(self, key: str, text: str) -> None:
        self._spool.add(key, text.encode(), content_type="application/json")
        if not self._spool.wait_drained(_STORED_SECONDS):
            raise TryAgain(f"{key} is not stored after {_STORED_SECONDS:.0f} s", remedy="is the store reachable?")

    def _tell(self, checkpoint: Checkpoint | None) -> None:
        if self._gang.rank:
            return
        stored: dict[str, Any] | None = None
        if checkpoint is not None:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            stored = {"step": checkpoint.step, "attempt": checkpoint.attempt, "uri": checkpoint.folder, "time": now}
            if self._task.resume_step is not None:
                stored["resumedFromStep"] = self._task.resume_step
        TrainingProgress(step=self.step, checkpoint=stored).write(self._spool.root)


def main() -> int:
    """Run one attempt; the exit code."""
    if parent.PARENT_VARIABLE in os.environ:
        parent.die_with_parent()
    log.configure("training")
    try:
        spool = Spool(Path(os.environ["FRAZIL_SPOOL"]))
        task = TrainingTask.read(spool.root)
        run = Run(task, spool, Gang(os.environ), step_seconds=float(os.environ.get("STAND_IN_STEP_SECONDS") or 0.05))
        signal.signal(signal.SIGTERM, run.stop)
        logger.info("begins", step=run.step, attempt=task.attempt)
        run.go()
    except FrazilError as error:
        print(error, file=sys.stderr)
        return exit_code_of(error)
    except RuntimeError as error:  # the gang did not meet
        print(str(error).splitlines()[0], file=sys.stderr)
        return TEMPFAIL
    return OK
