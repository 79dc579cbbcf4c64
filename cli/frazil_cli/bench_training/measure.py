"""Starts the ranks of `frazil bench training`, and makes one table of their times. Ratios are taken round by round."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from frazil_jobs.api.pipelining import Schedule
from frazil_jobs.base import parent
from frazil_jobs.base.exits import FrazilError

if TYPE_CHECKING:
    from frazil_cli.bench_training.rows import Row

TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    rounds: int
    least_ms: float
    """The shortest action's time: all times of the published run are multiplied until it takes so long."""
    max_ratio: float
    """Cap on each stage's mean freeze ratio, for every method."""
    schedules: tuple[Schedule, ...]

    @classmethod
    def read(cls, workdir: Path) -> Self:
        """As `measure` left them for the ranks."""
        document = json.loads((workdir / "settings.json").read_text())
        return cls(**{**document, "schedules": tuple(document["schedules"])})


def measure(settings: Settings, tell: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Start four ranks, wait for them, and return one object (the `--json` of `frazil bench training`)."""
    from frazil_cli.bench_training.rows import RANKS, published_plan, rows_of, scaled_model

    with tempfile.TemporaryDirectory(prefix="frazil-bench-") as folder:
        workdir = Path(folder)
        (workdir / "settings.json").write_text(json.dumps(asdict(settings)))
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        ranks = []
        for rank in range(RANKS):
            with (workdir / f"rank-{rank}.log").open("wb") as log:
                arguments = [sys.executable, "-m", "frazil_cli.bench_training.rank", folder, str(rank)]
                ranks.append(parent.start(arguments, env=env, stdout=log, stderr=log))
        try:
            _wait(ranks, workdir, tell)
        finally:
            for process in ranks:
                process.kill()
                process.wait()
        measured = json.loads((workdir / "measured.json").read_text())
    model = scaled_model(settings.least_ms)
    rows = rows_of(model, settings.schedules, max_ratio=settings.max_ratio)
    return {
        "rows": [figures for figures in _table(rows, measured) if figures["schedule"] in settings.schedules],
        "model": "published 8B run (4 stages, 8 microbatches), emulated by sleeping",
        "least_ms": settings.least_ms,
        "max_freeze_ratio": settings.max_ratio,
        "published": published_plan(settings.max_ratio),
        "rounds": settings.rounds,
        "baseline": "1F1B, none",
        "load_average": os.getloadavg()[0],
    }


def _table(rows: Sequence[Row], measured: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One object a row."""
    from frazil_cli.bench_training.rows import AS_1F1B

    seconds = [[one["seconds"] for one in times] for times in measured]
    unfrozen = {row.schedule: at for at, row in enumerate(rows) if row.method == "none"}
    published = {row.schedule: at for at, row in enumerate(rows) if row.method == "published"}
    baseline = unfrozen["1F1B"]

    def rival(row: Row) -> Row:
        return rows[published["1F1B" if row.method == AS_1F1B else row.schedule]]

    return [
        _figures(
            row,
            times,
            speedups=_ratios(seconds[baseline], seconds[at]),
            like_for_like=_ratios(seconds[unfrozen[row.schedule]], seconds[at]),
            predicted_speedup=rows[baseline].predicted / row.predicted,
            freezing_of_published=row.plan.mean_freeze_ratio / rival(row).plan.mean_freeze_ratio,
        )
        for at, (row, times) in enumerate(zip(rows, measured, strict=True))
    ]


def _ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Round by round, so that a slow minute slows both sides."""
    return [a / b for a, b in zip(over, under, strict=True)]


def _figures(
    row: Row,
    times: Sequence[dict[str, Any]],
    *,
    speedups: Sequence[float],
    like_for_like: Sequence[float],
    predicted_speedup: float,
    freezing_of_published: float,
) -> dict[str, Any]:
    """Medians of a row. The residue is what is measured over what is predicted, less 1, in three parts: tensors whose drawn
    times differ from the plan's ratios (simulated with what the actions were told to take), actions that took longer than
    they were told to (simulated with their measured times), and everything between actions."""
    seconds = statistics.median(one["seconds"] for one in times)
    told, actual = _simulated(row, times, "told"), _simulated(row, times, "actions")
    ratio = statistics.fmean(one["ratio"] for one in times)
    return {
        "schedule": row.schedule,
        "method": row.method,
        "speedup": statistics.median(speedups),
        "speedup_of_schedule": statistics.median(like_for_like),
        "predicted_speedup": predicted_speedup,
        "mean_freeze_ratio": row.plan.mean_freeze_ratio,
        "mean_freeze_ratio_measured": ratio,
        "freezing_of_published": freezing_of_published,
        "gradient_rate": statistics.median(speedups) * (1 - row.plan.mean_freeze_ratio),
        "seconds": seconds,
        "predicted_seconds": row.predicted,
        "residue": seconds / row.predicted - 1,
        "residue_of_drawing": told / row.predicted - 1,
        "residue_of_actions": (actual - told) / row.predicted,
        "residue_between_actions": (seconds - actual) / row.predicted,
        "spread": [min(speedups), max(speedups)],
        "stages": list(row.cut.sizes),
    }


def _simulated(row: Row, times: Sequence[dict[str, Any]], seconds: str) -> float:
    """The step of actions that take these seconds of theirs, with nothing between them: median of the rounds."""
    from frazil_jobs.training.planning import simulator
    from frazil_jobs.training.planning.timings import ActionTime, Timings

    return statistics.median(
        simulator.simulate(
            row.order,
            Timings(
                provenance="recorded",
                actions={
                    action: ActionTime(full=one[seconds][str(action)], frozen=one[seconds][str(action)])
                    for action in row.order.actions
                },
                hop_seconds=(0.0,) * (row.order.stages - 1),
            ),
        ).makespan
        for one in times
    )


def _wait(ranks: Sequence[subprocess.Popen[bytes]], workdir: Path, tell: Callable[[str], None]) -> None:
    """Until all have ended. The first that fails ends the wait with its log; ranks that wait for each other time out."""
    while any(process.poll() is None for process in ranks):
        failed = [rank for rank, process in enumerate(ranks) if process.poll() not in (None, 0)]
        if failed:
            break
        if (progress := workdir / "progress").exists():
            tell(f"round {progress.read_text()}")
        time.sleep(0.2)
    for rank, process in enumerate(ranks):
        if process.poll():
            log = (workdir / f"rank-{rank}.log").read_text(errors="replace")
            raise FrazilError(f"rank {rank} failed:\n{log[-3000:]}")
