"""What the leader tells: progress while it trains; report and manifest at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from frazil_jobs.api.naming import GALLERY_KEY, MANIFEST_KEY
from frazil_jobs.base.exits import TryAgain
from frazil_jobs.inputs.training_task import TrainingTask
from frazil_jobs.outputs.progress import TrainingProgress
from frazil_jobs.outputs.spool import Entry, Spool
from frazil_jobs.outputs.training_manifest import StoredFile, TrainingManifest
from frazil_jobs.outputs.training_report import render
from frazil_jobs.training.freezing.plans import Planned
from frazil_jobs.training.planning.drawing import Panel, gantt
from frazil_jobs.training.planning.simulator import simulate

if TYPE_CHECKING:
    from frazil_jobs.training.trainer import Trainer

TELL_SECONDS: Final = 1.0
"""Between two words on progress, unless a checkpoint was committed."""


@dataclass
class Teller:
    """Writes progress into the spool, now and then."""

    spool: Spool
    given: TrainingTask
    _told: float = float("-inf")
    _checkpoint: dict[str, Any] | None = None

    def tell(self, trainer: Trainer) -> None:
        """Tell how far the run is, if it's time to."""
        checkpoint = self._stored(trainer)
        now = time.monotonic()
        last = trainer.step == trainer.spec.steps
        if now - self._told < TELL_SECONDS and checkpoint == self._checkpoint and not last:
            return
        self._told, self._checkpoint = now, checkpoint
        point, measures = trainer.newest, trainer.history.measures
        TrainingProgress(
            step=trainer.step,
            steps=trainer.spec.steps,
            loss=point.loss if point else None,
            validation_loss=measures[-1].loss if measures else None,
            accuracy=measures[-1].accuracy if measures else None,
            throughput=point.throughput if point else None,
            freeze_ratio=point.freeze_ratio if point else None,
            phase=point.phase if point else "",
            checkpoint=checkpoint,
        ).write(self.spool.root)

    def _stored(self, trainer: Trainer) -> dict[str, Any] | None:
        """The newest checkpoint of this attempt, as in status.checkpoint."""
        newest = trainer.checkpoints.newest
        if newest is None:
            return None
        found: dict[str, Any] = {
            "step": newest.checkpoint.step,
            "attempt": newest.checkpoint.attempt,
            "uri": newest.checkpoint.folder,
            "time": newest.time,
        }
        if trainer.resumed_from is not None:
            found["resumedFromStep"] = trainer.resumed_from
        return found


def finish(spool: Spool, given: TrainingTask, trainer: Trainer, *, exported: list[Entry]) -> list[Entry]:
    """Put report and manifest into the spool, once the model is stored. Returns their entries.

    The manifest is the commit of the job's results.
    """
    job = given.job
    entries = []
    if job.spec.output.report:
        page = render(job, trainer.history.document(), steps=trainer.step, schedule=drawn_schedule(trainer))
        entries.append(spool.add(GALLERY_KEY, page.encode(), content_type="text/html; charset=utf-8"))
        if not spool.wait_drained(float("inf"), trainer.stopped):
            raise TryAgain("stopped before the report was stored; the model is")
    files = [
        StoredFile(key=one.key, sha256=one.sha256, size=one.size, content_type=one.content_type)
        for one in [*exported, *entries]
    ]
    newest = trainer.checkpoints.newest
    manifest = TrainingManifest.of(
        job, given.uid, given.prefix, steps=trainer.step, outputs=files, history=trainer.history.document(),
        checkpoint=newest.checkpoint.folder if newest else None,
    )  # fmt: skip
    return [*entries, spool.add(MANIFEST_KEY, manifest.text().encode(), content_type="application/json")]


def drawn_schedule(trainer: Trainer) -> str:
    """The schedule without freezing and by the newest plan, on the times that this was made from, as SVG; "" without one."""
    plans = trainer.freezing.plans if trainer.freezing is not None else []
    if not plans:
        return ""
    planned, order = Planned.from_json(plans[-1]), trainer.engine.order
    before = simulate(order, planned.timings)
    after = simulate(order, planned.timings, planned.plan.ratios)
    percent = 100 * (1 - after.makespan / before.makespan) if before.makespan else 0.0
    return gantt(
        [
            Panel("nothing frozen", order, before),
            Panel(
                f"planned at step {planned.step}, {percent:.0f} % shorter",
                order,
                after,
                planned.plan.ratios,
            ),
        ]
    )
