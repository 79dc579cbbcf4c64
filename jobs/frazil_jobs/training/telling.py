"""What the leader tells: progress while it trains; report and manifest at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from frazil_jobs.api.naming import GALLERY_KEY, MANIFEST_KEY
from frazil_jobs.api.status import CheckpointStatus
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

PLANS_KEY: Final = "plans.json"
TIMINGS_KEY: Final = "timings.json"
TELL_SECONDS: Final = 1.0
"""Between two words on progress, unless a checkpoint was committed."""


@dataclass
class Teller:
    """Writes progress into the spool, now and then."""

    spool: Spool
    given: TrainingTask
    _told: float = float("-inf")
    _checkpoint: CheckpointStatus | None = None

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

    def _stored(self, trainer: Trainer) -> CheckpointStatus | None:
        """The newest checkpoint of this attempt, as in status.checkpoint."""
        newest = trainer.checkpoints.newest
        if newest is None:
            return None
        return CheckpointStatus(
            step=newest.checkpoint.step,
            attempt=newest.checkpoint.attempt,
            uri=newest.checkpoint.folder,
            time=newest.time,
            resumed_from_step=trainer.resumed_from,
        )


def report(spool: Spool, given: TrainingTask, trainer: Trainer, *, blocks: Sequence[range]) -> list[Entry]:
    """Put into the spool what is told beside the model: the report, the freezing plans, which another run can replay, and
    the times that the newest was made from, as `frazil plan --timings` reads them. `blocks`: those of every stage."""
    entries, plans = [], trainer.freezing.plans if trainer.freezing is not None else []
    if given.job.spec.output.report:
        page = render(given.job, trainer.history.document(), steps=trainer.step, schedule=drawn_schedule(trainer))
        entries.append(spool.add(GALLERY_KEY, page.encode(), content_type="text/html; charset=utf-8"))
    if plans:
        entries.append(spool.add(PLANS_KEY, json.dumps(plans).encode(), content_type="application/json"))
        planned = Planned.from_json(plans[-1])
        told = planned.timings.model_copy(
            update={
                "stage_blocks": tuple(len(stage) for stage in blocks),
                "note": f"{given.job.metadata.name}, before step {planned.step}",
            }
        )
        entries.append(spool.add(TIMINGS_KEY, told.to_json().encode(), content_type="application/json"))
    return entries


def manifest(spool: Spool, given: TrainingTask, trainer: Trainer, *, outputs: list[Entry]) -> Entry:
    """Put the manifest into the spool, once all `outputs` are stored: it is the commit of the job's results."""
    files = [
        StoredFile(key=one.key, sha256=one.sha256, size=one.size, content_type=one.content_type) for one in outputs
    ]
    newest = trainer.checkpoints.newest
    made = TrainingManifest.of(
        given.job, given.uid, given.prefix, steps=trainer.step, outputs=files, history=trainer.history.document(),
        checkpoint=newest.checkpoint.folder if newest else None,
    )  # fmt: skip
    return spool.add(MANIFEST_KEY, made.text().encode(), content_type="application/json")


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
