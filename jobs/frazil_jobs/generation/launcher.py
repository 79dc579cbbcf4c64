"""Starts the ranks of one replica on this node and ends with the code that the operator reads.

    python -m frazil_jobs.generation

What it does is in `frazil_jobs.launching.launcher`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs.task import Task
from frazil_jobs.launching.launcher import launch
from frazil_jobs.launching.settings import LauncherSettings
from frazil_jobs.launching.supervise import Words

WORKER: Final = "frazil_jobs.generation.worker"
WORDS: Final = Words(
    before="stopped before the first image",
    stopping="the images in hand are finished",
    dropped="images in hand are dropped",
    timeout_field="spec.parallelism.timeoutSeconds",
)


def main(environ: Mapping[str, str] | None = None) -> int:
    """Run the launcher. Returns the exit code; what a person has to know is the last thing on stderr."""
    return launch("generation", WORKER, ranks_of, WORDS, environ)


def ranks_of(settings: LauncherSettings) -> int:
    """The ranks of this node that the job's degrees ask for."""
    degrees = Task.read(settings.spool).job.spec.parallelism
    world = degrees.conditioning * degrees.pipeline * degrees.sequence
    if world % settings.nodes:
        raise BadConfiguration(
            f"conditioning × pipeline × sequence = {world} ranks can't be shared by {settings.nodes} nodes",
            field="spec.parallelism",
        )
    return world // settings.nodes
