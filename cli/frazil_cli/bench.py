"""`frazil bench`: every speed figure of the README is one of these commands away, compared with its physical bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    help="Measure a mode against one device, here: medians of ratios, interleaved, beside the bound.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def _bench() -> None:
    """Measure a mode against one device, here: medians of ratios, interleaved, beside the bound."""


@app.command("exact")
def exact(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after the first, which is dropped.")] = 7,
    steps: Annotated[int, typer.Option(min=2, help="Denoising steps of each timed loop.")] = 8,
    width: Annotated[int, typer.Option(min=64, help="Channels of the built-in denoiser, in steps of 64.")] = 384,
    layers: Annotated[int, typer.Option(min=1, help="Blocks of the built-in denoiser.")] = 8,
    model: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A pipeline folder to measure instead, as it is."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="The prompt, when --model is given.")] = "a large red ring on the left",
    batch: Annotated[int, typer.Option(min=1, help="Pictures a call.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda (two GPUs).")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """One rank (one thread) against two ranks (one thread each, pinned to a core): the exact split of guidance.

    The denoiser's branch should take 50 ms or more, else messages are what is measured. In each round the stock loop,
    the split loop, and the denoiser at batch 2 alone and at batch 1 on both cores at once are timed in turn.

    The bound of the loop's speed-up is t(batch 2) / t(one branch while the other core is equally busy): no split of
    guidance can be faster than that here. `batch2_over_batch1` is the raw ratio with the other core idle.

    Examples:

    - `frazil bench exact`
    - `frazil bench exact --json > exact.json`
    - `frazil bench exact --model examples/shapes/model --batch 32`
    """
    from frazil_cli import bench_exact

    console = Console(stderr=True)
    settings = bench_exact.Settings(
        rounds=rounds, steps=steps, width=width, layers=layers, model=model, prompt=prompt, batch=batch, device=device
    )
    with console.status("measuring: starting two ranks"):
        result = bench_exact.measure(settings)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    out = Console()
    out.print(_table(result))
    out.print(f"[bold]{result['ratio_to_bound']:.3f}[/] of the bound {result['bound']:.2f}x; {result['reading']}")


@app.command("operator")
def operator(
    jobs: Annotated[int, typer.Option(min=1, help="GenerationJobs of one pod each.")] = 1000,
    kills: Annotated[int, typer.Option(min=0, help="How often the operator is killed (-9) in the second run.")] = 5,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Jobs that the operator reconciles at once.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds after which a wait is given up.")] = 3600.0,
    logs: Annotated[Path | None, typer.Option(help="Keep the logs of all processes in this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The operator alone, under load: a real API server, with nodes and pods that kwok pretends.

    Runs the jobs twice. In peace: all are applied, held in Running while the operator, started anew, looks at each of them
    ten times more (nothing may be written), and let go. Then with the operator killed again and again: both must end alike.
    Writes to the API server are those that the operator counts itself; Events and its Lease are counted apart.

    The control plane is that of KUBECONFIG (with `kwok` on the PATH), or one that a checkout of Frazil starts for this.

    Examples:

    - `frazil bench operator --jobs 1000 --json`
    - `frazil bench operator --jobs 10000 --kills 0`
    """
    from frazil_cli.bench_operator.measure import Load, measure

    console = Console(stderr=True)
    load = Load(jobs=jobs, workers=workers, kills=kills, seconds=timeout, logs=logs)
    with console.status("starting a control plane") as status:
        result = measure(load, status.update)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    table = Table(title=f"The operator with {jobs} jobs", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in result.items():
        if isinstance(value, int | float):
            table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)


def _table(result: dict[str, object]) -> Table:
    table = Table(title=f"Exact split of guidance: {result['denoiser']}", title_justify="left")
    table.add_column("figure")
    table.add_column("median", justify="right")
    table.add_column("min", justify="right")
    table.add_column("max", justify="right")
    table.add_column("what it is")
    spreads = result["spread"]
    assert isinstance(spreads, dict)
    for name, meaning in (
        ("speedup", "loop: stock on one rank / split on two"),
        ("speedup_end_to_end", "the whole call: text, loop, decode"),
        ("speedup_two_threads", "the other use of two cores: one rank, two threads"),
        ("batch2_over_batch1", "raw ratio, the other core idle"),
        ("bound", "t(batch 2) / t(branch, other core busy)"),
        ("ratio_to_bound", "speedup / bound, round by round"),
    ):
        if (spread := spreads.get(name)) is not None:
            table.add_row(name, *(f"{value:.3f}" for value in spread), meaning)
    table.add_row("branch_ms", f"{result['branch_ms']:.1f}", "", "", "one branch, other core busy")
    table.add_row(
        "bytes_per_step", f"{result['bytes_per_step']:,}", "", "", f"{result['collectives_per_step']} collective a step"
    )
    table.add_row(
        "max_relative_difference", f"{result['max_relative_difference']:.2e}", "", "", "split against the stock call"
    )
    return table
