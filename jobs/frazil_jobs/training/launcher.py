"""Starts the ranks of one node of a TrainingJob and ends with the code that the operator reads.

    python -m frazil_jobs.training

What it does is in `frazil_jobs.launching.launcher`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs.training_task import TrainingTask
from frazil_jobs.launching.launcher import launch
from frazil_jobs.launching.settings import LauncherSettings
from frazil_jobs.launching.supervise import Words

WORKER: Final = "frazil_jobs.training.worker"
WORDS: Final = Words(
    before="stopped before the first step",
    stopping="the step in hand is finished, and a checkpoint is stored",
    dropped="the steps since the newest checkpoint are lost",
    timeout_field="the time-out of a collective",
)


def main(environ: Mapping[str, str] | None = None) -> int:
    """Run the launcher. Returns the exit code; what a person has to know is the last thing on stderr."""
    return launch("training", WORKER, ranks_of, WORDS, environ)


def ranks_of(settings: LauncherSettings) -> int:
    """The ranks of this node that the job's degrees ask for."""
    degrees = TrainingTask.read(settings.spool).job.spec.parallelism
    world = degrees.pipeline * degrees.data
    if world % settings.nodes:
        raise BadConfiguration(
            f"pipeline × data = {world} ranks can't be shared by {settings.nodes} nodes", field="spec.parallelism"
        )
    return world // settings.nodes
