"""The loop over optimizer steps: data, forward and backward, the update, evaluation, checkpoints, progress.

All ranks run it in step. What one of them wants to know of all (to stop, whether a checkpoint is still in work) they ask
each other between steps. A step's random numbers follow from the seed and the step, so a run that is resumed goes on as if
nothing had happened.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import nn

from frazil_jobs.api.checkpoints import MARKER
from frazil_jobs.api.trainingjob import TrainingJobSpec
from frazil_jobs.base.exits import BadConfiguration, TryAgain
from frazil_jobs.base.log import get_logger
from frazil_jobs.training import state
from frazil_jobs.training.checkpointing import Checkpoints
from frazil_jobs.training.data.feed import Part, loader, validation_batches
from frazil_jobs.training.data.order import Share
from frazil_jobs.training.draws import generator, seed_of
from frazil_jobs.training.freezing.freezer import Freezer
from frazil_jobs.training.grid import Grid, Groups
from frazil_jobs.training.history import History, Measure, Point
from frazil_jobs.training.optimizer import Ema, learning_rate, set_learning_rate
from frazil_jobs.training.pipeline.engine import PipelineEngine, StepReport
from frazil_jobs.training.tasks import ImageClassification, Task

NOT_FINITE: Final = 20
"""Steps in a row whose gradient is no number, after which a run ends."""
STOP_SECONDS: Final = 3600.0
"""How long the last checkpoint of a run waits for the store; a launcher that is in a hurry ends it before."""
PACE_STEPS: Final = 20
SHARE_STEPS: Final = 10
"""Between two steps whose freeze ratios and times ranks tell each other."""
LOG_SECONDS: Final = 10.0

log = get_logger(__name__)


@dataclass(kw_only=True)
class Trainer:
    """One rank's part of a run."""

    task: Task
    training: Part
    validation: Part
    engine: PipelineEngine
    stages: Mapping[int, nn.Module]
    """This rank's."""
    weights: Mapping[str, nn.Parameter]
    """Those of its stages, by the names that they have in the whole model."""
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    freezing: Freezer | None
    checkpoints: Checkpoints
    grid: Grid
    groups: Groups
    fingerprint: str
    """Of the model, for the marker of checkpoints."""
    attempt: int = 0
    stopped: Callable[[], bool] = lambda: False
    report: Callable[[Trainer], None] = lambda _trainer: None
    """Called after each step where something may have changed that people want to see."""
    loader_workers: int = 0
    step: int = 0
    """Optimizer steps that are done."""
    resumed_from: int | None = None
    history: History = field(default_factory=History)
    _not_finite: int = 0
    _paces: deque[float] = field(default_factory=lambda: deque(maxlen=PACE_STEPS))
    _batches: Any = None
    _logged: float = float("-inf")
    _begun: int = 0
    """Step of the newest checkpoint that was begun: the same on every rank, unlike what each knows to be stored."""
    newest: Point | None = None
    _told: StepReport | None = None
    """Of all stages, gathered now and then: what a point says of freezing and of a batch's time is all of this step."""

    @property
    def spec(self) -> TrainingJobSpec:
        """Of the job."""
        return self.task.spec

    @property
    def share(self) -> Share:
        """This replica's part of the data."""
        return Share(
            batch=self.spec.batch_size,
            accumulation=self.spec.accumulation,
            replicas=self.grid.data,
            replica=self.grid.replica,
        )

    def run(self) -> None:
        """All steps that are left, and a checkpoint after the last. Raises TryAgain when told to stop."""
        feed = self.feed()
        rows = iter(feed)
        self.report(self)
        while self.step < self.spec.steps:
            if self._any(self.stopped()):
                self._stop(feed)
            self.advance(rows)
            last = self.step == self.spec.steps
            if self.step % self.spec.checkpoint.every_steps == 0 or last:
                self._checkpoint(feed, wait=last)
            self.report(self)
        self._finish_checkpoint("the last checkpoint")
        self.report(self)

    # --- steps ---

    def advance(self, rows: Any) -> None:
        """One step on the next of `rows`, which `feed` gives, and an evaluation where one is due."""
        self._train_step(rows)
        every = self.spec.evaluation.every_steps
        if every and (self.step % every == 0 or self.step == self.spec.steps):
            self._evaluate()

    def feed(self) -> Any:
        """What is left of the data, batch by batch; its `state_dict` is its place."""
        feed = loader(
            self.training,
            self.share,
            seed=self.spec.seed,
            steps=self.spec.steps,
            first=self.step,
            workers=self.loader_workers,
        )
        if self._batches is not None:
            feed.load_state_dict(self._batches)
        return feed

    def _train_step(self, rows: Any) -> None:
        spec, step, started = self.spec, self.step, time.monotonic()
        torch.manual_seed(seed_of(spec.seed, "step", step, self.grid.rank))  # dropout
        for stage in self.stages.values():
            stage.train()
        rate = learning_rate(spec.optimizer, step, spec.steps)
        set_learning_rate(self.optimizer, rate)
        self.engine.begin_step(step)
        for part in range(spec.accumulation):
            draw = generator(spec.seed, "batch", step, part, self.grid.replica)
            batch = self.task.batch(next(rows), draw=draw, training=True)
            self.engine.train_batch(batch.inputs, batch.target, kwargs=batch.kwargs)
        self.engine.reduce_gradients()
        norm = self.engine.clip_gradients(float(spec.optimizer.clip_norm))
        if math.isfinite(norm):
            self.optimizer.step()
            self._not_finite = 0
        else:
            self._count_not_finite(step, norm)
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(step)
        told = self.engine.end_step()
        loss = self.engine.mean_loss()
        self.step += 1
        shared = self._told
        if shared is None or told.phase != shared.phase or self.step % SHARE_STEPS == 0 or self.step == spec.steps:
            shared = self._told = self.engine.share(told)
            self.history.note_groups(shared.group_ratios)
        seconds = time.monotonic() - started
        self._paces.append(seconds)
        point = Point(
            step=self.step,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm,
            seconds=seconds,
            throughput=spec.batch_size * len(self._paces) / sum(self._paces),
            freeze_ratio=float(shared.mean_freeze_ratio),
            freeze_ratios=tuple(float(ratio) for _, ratio in sorted(shared.freeze_ratios.items())),
            predicted_seconds=None if shared.predicted_seconds is None else float(shared.predicted_seconds),
            measured_seconds=span_of(shared),
            phase=shared.phase,
            attempt=self.attempt,
        )
        self.history.add(point)
        self.newest = point
        self._log(point)

    def _log(self, point: Point) -> None:
        now = time.monotonic()
        if self.grid.rank == 0 and (now - self._logged >= LOG_SECONDS or point.step == self.spec.steps):
            self._logged = now
            log.info(
                "step",
                step=point.step,
                of=self.spec.steps,
                loss=round(point.loss, 5),
                samples_per_second=round(point.throughput, 2),
                freeze_ratio=round(point.freeze_ratio, 3),
            )

    def _count_not_finite(self, step: int, norm: float) -> None:
        """A step whose gradient is no number is left out; the norm is the same on every rank, so all leave it out."""
        self._not_finite += 1
        log.warning("the gradient is not finite: the step changes nothing", step=step, norm=norm)
        if self._not_finite >= NOT_FINITE:
            raise BadConfiguration(
                f"the gradient was not finite in {NOT_FINITE} steps in a row, up to step {step + 1}",
                field="spec.optimizer.learningRate",
                remedy="lower it, or lengthen optimizer.warmupSteps; the checkpoints before can be begun from",
            )

    # --- evaluation ---

    def _evaluate(self) -> None:
        """The mean loss of the same validation batches each time, with the weights that are exported."""
        batches, total, right = self.spec.evaluation.batches, 0.0, 0.0
        measure = self.task.accuracy if isinstance(self.task, ImageClassification) else None
        share = Share(batch=self.share.size * self.grid.data, replicas=self.grid.data, replica=self.grid.replica)
        with self.ema.in_place() if self.ema is not None else nullcontext():
            for stage in self.stages.values():
                stage.eval()
            for number, rows in enumerate(validation_batches(self.validation, share, batches=batches)):
                draw = generator(self.spec.seed, "validation", number, self.grid.replica)
                batch = self.task.batch(rows, draw=draw, training=False)
                total += self.engine.evaluate_batch(batch.inputs, batch.target, kwargs=batch.kwargs)
                if measure is not None:
                    right += self.engine.evaluate_batch(
                        batch.inputs, batch.target, kwargs=batch.kwargs, measure=measure
                    )
        found = Measure(step=self.step, loss=total / batches, accuracy=right / batches if measure else None)
        self.history.measures.append(found)
        if self.grid.rank == 0:
            log.info("validation", step=self.step, loss=round(found.loss, 5), accuracy=found.accuracy)

    # --- checkpoints ---

    def _checkpoint(self, feed: Any, *, wait: bool) -> None:
        if self._any(self.checkpoints.busy()):
            if not wait:
                log.warning("the checkpoint before is not stored yet: this one is left out", step=self.step)
                return
            self._finish_checkpoint("the checkpoint before")
        if self.freezing is not None:
            self.history.plans = list(self.freezing.plans)
        own = {
            "step": self.step,
            "data": feed.state_dict(),
            "freezing": self.freezing.state_dict() if self.freezing is not None else None,
            "history": self.history.document() if self.grid.rank == 0 else None,
        }
        tensors = state.gathered(self.weights, self.optimizer, self.ema, rank=self.grid.rank, own=own)
        self._begun = self.step
        self.checkpoints.begin(self.step, tensors, {"model": self.fingerprint})

    def _finish_checkpoint(self, what: str) -> None:
        """Wait for the one in work; ranks wait by themselves, since its own thread keeps them together."""
        if not self.checkpoints.wait(STOP_SECONDS):
            raise TryAgain(f"{what} is not stored after {STOP_SECONDS:.0f} s", remedy="is the store reachable?")

    def _stop(self, feed: Any) -> None:
        """Store where the run stands, and say that it can be gone on with."""
        if self.step and self.step not in (self._begun, self.resumed_from):
            self._checkpoint(feed, wait=True)
        self._finish_checkpoint("the checkpoint of the stop")
        self.report(self)
        raise TryAgain(f"stopped after step {self.step} of {self.spec.steps}; a checkpoint is stored")

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in `folder`. Raises BadConfiguration for one of another model, on every rank."""
        if json.loads((folder / MARKER).read_bytes()).get("model") != self.fingerprint:
            raise state.other_model("the weights of its model have other names or shapes")
        own = state.read(
            folder, self.weights, self.optimizer, self.ema, rank=self.grid.rank, group=self.groups.checkpoint
        )
        self.step = self.resumed_from = int(own["step"])
        self._batches = own["data"]
        if self.freezing is not None:
            if own["freezing"] is None:
                raise state.other_model("it was written without freezing")
            self.freezing.load_state_dict(own["freezing"])
        if own["history"] is not None:
            self.history = History.of(own["history"])

    def _any(self, flag: bool) -> bool:
        """Whether it's so on any rank. A collective."""
        if self.groups.control is None:
            return flag
        cell = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(cell, op=dist.ReduceOp.MAX, group=self.groups.control)
        return bool(cell.item())


def span_of(report: StepReport) -> float | None:
    """Seconds of a pipeline batch: the longest span of one stage, from its first action to its last; the median of the
    step's batches. The first stage begins and ends a batch, and clocks of different ranks need not agree."""
    spans: dict[tuple[int, int], list[float]] = {}
    for one in report.timed:
        spans.setdefault((one.batch, one.action.stage), []).extend((one.start, one.start + one.seconds))
    longest: dict[int, float] = {}
    for (batch, _), times in spans.items():
        longest[batch] = max(longest.get(batch, 0.0), max(times) - min(times))
    return median(longest.values()) if longest else None
