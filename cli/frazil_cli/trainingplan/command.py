"""The part of `frazil plan` that is about a TrainingJob: plan it, print it, draw it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from frazil_cli.cluster import access
from frazil_cli.errors import lines_of
from frazil_cli.prepare import environment_for
from frazil_cli.trainingplan.planning import make_training_plan, problems_of
from frazil_cli.trainingplan.screen import draw
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs.access import Access
from frazil_jobs.stores import StoreConfig
from frazil_jobs.training.planning.drawing import chrome_trace, gantt
from frazil_jobs.training.planning.estimate import Device


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was asked about a TrainingJob."""

    file: Path
    store: StoreConfig | None
    timings: Path | None
    teraflops: float
    gigabytes: float
    compare: bool
    gantt: Path | None
    trace: Path | None
    cluster: access.Access | None


def show(job: TrainingJob, asked: Asked, *, as_json: bool) -> list[dict[str, Any]]:
    """The plan of a TrainingJob, printed and drawn. Returns its problems."""
    stderr, out = Console(stderr=True, highlight=False), Console(highlight=False)
    with stderr.status("simulating a step"):
        plan = make_training_plan(
            job,
            base_dir=asked.file.absolute().parent,
            access=Access.from_env(environment_for(asked.store)),
            timings=asked.timings,
            device=Device(teraflops=asked.teraflops, gigabytes=asked.gigabytes),
            compare=asked.compare,
        )
    if plan.panels:
        _write(asked.gantt, lambda: gantt(plan.panels), "--gantt")
        _write(asked.trace, lambda: chrome_trace(plan.panels), "--trace")
    on = None
    if asked.cluster is not None:
        from frazil_cli.cluster import planned

        with stderr.status("asking the cluster"):
            on = planned.on_cluster(asked.file, job, None, asked.cluster)
        plan.document["cluster"] |= on.document()
        plan.problems += on.problems
    problems = problems_of(plan)
    if as_json:
        typer.echo(json.dumps({**plan.document, "problems": problems}, indent=2))
    else:
        draw(plan.document, out)
        if on is not None:
            planned.draw(on, out)
        for problem in plan.problems:
            for line in lines_of(problem):
                stderr.print(line, soft_wrap=True)
    return problems


def _write(file: Path | None, drawn: Callable[[], str], option: str) -> None:
    if file is None:
        return
    try:
        file.absolute().parent.mkdir(parents=True, exist_ok=True)
        file.write_text(drawn(), encoding="utf-8")
    except OSError as error:
        raise BadConfiguration(
            f"{file} can't be written: {error.strerror}", field=option, remedy="name another file"
        ) from None
