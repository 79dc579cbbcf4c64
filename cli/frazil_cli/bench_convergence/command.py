"""`frazil bench convergence`: its options, its table, its drawing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from frazil_cli.bench_convergence import METHODS

if TYPE_CHECKING:
    from frazil_cli.bench_convergence.methods import Settings
    from frazil_cli.bench_convergence.rows import Run


def convergence(
    jobs: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, help="TrainingJobs of two pipeline ranks.")
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(METHODS)}; may be given again. Left out: all. `none` always runs."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each method: weights, data order, noise.")] = 3,
    steps: Annotated[int, typer.Option(min=20, max=2000, help="Optimizer steps of each training.")] = 300,
    evaluations: Annotated[int, typer.Option(min=4, help="Of each training, at equal distances.")] = 25,
    max_freeze_ratio: Annotated[float, typer.Option(min=0, max=1, help="The cap of ours, and uniform's ratio.")] = 0.3,
    target: Annotated[
        float | None,
        typer.Option(
            help="The validation loss to reach. Left out: what every seed of none has after 3/4 of its steps."
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Keep each seed's runs in this folder; take those that are there."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(dir_okay=False, help="Draw loss over time into this SVG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time to a validation loss: jobs really trained on two cores, without freezing and with each way to freeze.

    The trainer is that of `frazil run`. Methods differ in `spec.freezing` alone: cut, seed and batches are the same, and all
    take their steps in turn, one by one, in one pair of processes, each pinned to a core. Time is that of steps,
    warm-up and monitoring included, evaluations not: as measured, and counted (each step at the median of its phase).

    Fields of a row: `job task method schedule stages seeds steps target_loss reached steps_to_target seconds_to_target
    spread counted_seconds_to_target counted_spread speedup speedup_spread counted_speedup step_seconds step_speedup
    step_speedup_to_pay mean_freeze_ratio final_loss`; null where the target wasn't reached. `step_speedup_to_pay`: what a
    step's speed-up had to be for the method to be as fast as none, by the steps that it took.

    Examples:

    - `frazil bench convergence examples/text/train.yaml --seeds 1 --steps 100`
    - `frazil bench convergence examples/text/train.yaml examples/shapes/train.yaml --plot curves.svg --json > rows.json`
    """
    from frazil_cli.bench_convergence.drawing import curves
    from frazil_cli.bench_convergence.measure import converge
    from frazil_cli.bench_convergence.methods import Settings
    from frazil_cli.bench_convergence.rows import rows_of

    if unknown := sorted(set(method or ()) - set(METHODS)):
        raise typer.BadParameter(f"{unknown[0]!r}: choose of {', '.join(METHODS)}", param_hint="--method")
    methods = [name for name in METHODS if name == "none" or not method or name in method]
    settings = Settings(steps=steps, evaluations=evaluations, max_freeze_ratio=str(max_freeze_ratio))
    with Console(stderr=True).status("reading the jobs") as status:
        runs = converge(jobs, settings, methods=methods, seeds=seeds, keep=keep, tell=status.update)
    rows = rows_of(runs, target)
    if plot is not None:
        plot.write_text(curves(runs, rows))
    if as_json:
        typer.echo(json.dumps(_document(rows, runs, settings, methods), indent=2))
        return
    Console().print(_table(rows))


def _document(
    rows: Sequence[Mapping[str, Any]], runs: Sequence[Run], settings: Settings, methods: Sequence[str]
) -> dict[str, Any]:
    from frazil_cli.bench_convergence.methods import freezing_of

    return {
        "rows": rows,
        "freezing": {
            method: freezing_of(method, settings).model_dump(mode="json", by_alias=True) for method in methods
        },
        "runs": [{"job": run.job, "method": run.method, "seed": run.seed, "curve": run.curve} for run in runs],
        "load_average": os.getloadavg()[0],
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Time to a validation loss, two stages on two cores", title_justify="left")
    for name in ("job", "method"):
        table.add_column(name)
    for name in ("loss", "steps", "seconds", "speed-up", "counted", "speed-up", "of a step", "to pay", "frozen", "end"):
        table.add_column(name, justify="right")
    for row in rows:
        if row["method"] == "none" and table.rows:
            table.add_section()
        low, high = (_text(value, ".1f") for value in row["spread"])
        table.add_row(
            row["job"],
            row["method"],
            _text(row["target_loss"], ".3f"),
            _text(row["steps_to_target"], ".0f"),
            f"{_text(row['seconds_to_target'], '.1f')} ({low}–{high})",
            _text(row["speedup"], ".2f"),
            _text(row["counted_seconds_to_target"], ".1f"),
            _text(row["counted_speedup"], ".2f"),
            _text(row["step_speedup"], ".2f"),
            _text(row["step_speedup_to_pay"], ".2f"),
            _text(row["mean_freeze_ratio"], ".2f"),
            _text(row["final_loss"], ".3f"),
        )
    return table


def _text(value: float | None, form: str) -> str:
    return "never" if value is None else format(value, form)
