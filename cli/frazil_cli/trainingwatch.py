"""How far a local run of a TrainingJob is: from its spool, where the leader of the ranks writes. Reads only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from frazil_cli.display import TrainingView, duration
from frazil_cli.preparetraining import PreparedTraining
from frazil_cli.workspace import Workspace
from frazil_jobs.outputs.progress import TrainingProgress, spooled_training
from frazil_jobs.outputs.scanner import UploadStatus, read_status

LOOK_SECONDS = 0.5


@dataclass
class TrainingWatch:
    """What is known of a run so far."""

    prepared: PreparedTraining
    space: Workspace
    redis_url: str = ""
    progress: TrainingProgress | None = None
    checkpoint: int | None = None
    """Step of the newest that is stored."""
    uploads: dict[int, UploadStatus] = field(default_factory=dict)
    trouble_since: float | None = None
    _looked: float = float("-inf")
    _waiting: int = 0

    @property
    def stored(self) -> int:
        """Steps of the newest checkpoint."""
        return self.checkpoint or 0

    def look(self, now: float, *, at_once: bool = False) -> None:
        """Read what there is, not too often."""
        if now - self._looked < LOOK_SECONDS and not at_once:
            return
        self._looked = now
        spool = self.space.spool(0)
        for progress in spooled_training(spool):
            self.progress = progress
            if progress.checkpoint is not None:
                self.checkpoint = max(self.checkpoint or 0, progress.checkpoint.step)
        if (status := read_status(spool)) is not None:
            self.uploads[0] = status
            troubled = status.state in ("StoreUnreachable", "StoreDenied")
            if not troubled or status.pending < self._waiting:
                self.trouble_since = now if troubled else None
            elif self.trouble_since is None:
                self.trouble_since = now
            self._waiting = status.pending

    def trouble_seconds(self, now: float) -> float:
        """How long nothing has reached the store although something waits."""
        return now - self.trouble_since if self.trouble_since is not None else 0.0

    def view(self, phase: str, replicas: Iterable[int], now: float) -> TrainingView:
        """All there is to show."""
        self.look(now)
        spec, progress = self.prepared.job.spec, self.progress
        notices: tuple[str, ...] = ()
        if self.trouble_since is not None:
            waited = duration(now - self.trouble_since)
            notices = (f"{self.uploads[0].message}; {self._waiting} files wait in the spool, for {waited} now",)
        if progress is None:
            return TrainingView(phase=phase, notices=notices)
        pace = progress.throughput
        return TrainingView(
            phase=phase,
            steps=spec.steps,
            step=progress.step,
            loss=progress.loss,
            validation_loss=progress.validation_loss,
            accuracy=progress.accuracy,
            samples_per_second=pace,
            seconds_left=(spec.steps - progress.step) * spec.batch_size / pace if pace else None,
            freeze_ratio=progress.freeze_ratio if spec.freezing.method != "None" else None,
            freezing=progress.phase,
            checkpoint=self.checkpoint,
            notices=notices,
        )
