"""One run of a TrainingJob on this machine: fetch, ranks and upload, from the newest checkpoint to the exported model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import ClassVar

from frazil_cli import components
from frazil_cli.localrun import AGAIN, LocalRun
from frazil_cli.preparetraining import Before, PreparedTraining
from frazil_cli.trainingwatch import TrainingWatch
from frazil_jobs.base.exits import CONFIG, DATAERR
from frazil_jobs.outputs.progress import TrainingProgress


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run leaves, and what it took."""

    steps: int
    before: int
    """Steps that an earlier run had done."""
    seconds: float
    attempt: int
    progress: TrainingProgress | None


@dataclass
class TrainingRun(LocalRun[TrainingResult]):
    """One run, from nothing or the newest checkpoint to the model."""

    prepared: PreparedTraining
    before: Before = field(kw_only=True)
    watch: TrainingWatch = field(init=False)
    finishing_words: ClassVar[str] = "finishing the step in hand and storing a checkpoint"

    def __post_init__(self) -> None:
        self.watch = TrainingWatch(self.prepared, self.space)

    def work(self) -> TrainingResult:
        """Train; ranks that die are started again from the newest checkpoint, as often as was asked for."""
        started = time.monotonic()
        self.attempt = self.before.attempt
        if self.before.step:
            self.display.say(f"goes on from the checkpoint of step {self.before.step}", mark="✓")
        self._fetch()
        name = components.name_of(components.COMPUTE, 0)
        for left in range(self.settings.retries, -1, -1):
            self.supervisor.start(components.compute(self._context(0), retries=0))
            self._until(lambda: self._ended([name]), self._doing, store=True)
            code = self._code(name)
            if code in (0, None):
                break
            if code in (DATAERR, CONFIG) or not left:
                self._stop_in_order()
                remedy = None if code in (DATAERR, CONFIG) else AGAIN
                raise self._failed(name, code, self._why(name, code), remedy=remedy)
            self.display.say(f"the ranks ended with {code}; starting them again from the newest checkpoint", mark="!")
            self.attempt += 1  # its checkpoints must not have the names of those before
            self._until(lambda: self._waiting() == 0, "storing what is left", store=True)
            self._fetch_again([0])
        self.watch.look(time.monotonic(), at_once=True)
        return TrainingResult(
            steps=self.prepared.job.spec.steps,
            before=self.before.step,
            seconds=time.monotonic() - started,
            attempt=self.attempt,
            progress=self.watch.progress,
        )

    def so_far(self) -> str:
        """The newest checkpoint."""
        self.watch.look(time.monotonic(), at_once=True)
        step = self.watch.checkpoint or self.before.step
        if not step:
            return "no checkpoint is stored"
        return f"the checkpoint of step {step} of {self.prepared.job.spec.steps} is stored"

    def _doing(self) -> str:
        if self.watch.progress is None or not self.watch.progress.step:
            return "loading model and data"
        done = self.watch.progress.step >= self.prepared.job.spec.steps
        return "storing the model" if done else "training"
