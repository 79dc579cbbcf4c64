"""`frazil plan`: what a job would do, and how fast it can be at best, before a device is taken."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from frazil_cli import options
from frazil_cli.run import LAYOUT, Device, DeviceOption, JobFile, Ranks, Replicas, Threads


def command(
    job: JobFile,
    ranks: Ranks = None,
    replicas: Replicas = None,
    device: DeviceOption = Device.AUTO,
    threads: Threads = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", rich_help_panel=LAYOUT, help="Leave out what needs diffusers: guidance, arguments, weights."
        ),
    ] = False,
    store: options.Store = None,
    endpoint: options.Endpoint = None,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Show what a job would do: ranks, shards, keys, the bound on its speed, what may change in the images.

    Every prompt is read and checked, and so are the files of a model that is here; no weight is loaded, nothing is
    fetched. Problems are listed as errors, all of them, and set the exit code.

    Examples:

    - `frazil plan job.yaml`
    - `frazil plan job.yaml --ranks 1 --quick`  in half a second
    - `frazil plan job.yaml --json | jq .outputs.count`

    Fields of the JSON object: `name namespace kind mode`; `outputs` (count, prompts, perPrompt, format, shards, perShard,
    promptsSha256, uid, prefix, firstKey, lastKey, firstSeed); `model` (uri, pipeline, bytes, dtype); `guidance` (style,
    branches, reason); `here` (device, ranks, replicas, threads, degrees, grid, notes); `cluster` (replicas, podsAtOnce,
    gpusAtOnce, indices, objects); `speedUp` (bound, measuredBound, measure); `message` (bytesPerStep, perStep, steps,
    what); `changes`; `problems` (field, message, remedy, exitCode). What can't be known here is null.
    """
    from rich.console import Console

    from frazil_cli.errors import lines_of
    from frazil_cli.planning import make_plan
    from frazil_cli.prepare import Wishes, store_config

    wishes = Wishes(device=device.value, ranks=ranks, replicas=replicas, threads=threads)
    stderr = Console(stderr=True, highlight=False)
    with stderr.status("reading the job, its prompts and its model"):
        plan = make_plan(job, store=store_config(store, endpoint), wishes=wishes, quick=quick)
    if as_json:
        typer.echo(json.dumps(plan.document, indent=2))
    else:
        from frazil_cli.plandrawing import draw

        draw(plan.document, Console(highlight=False))
        for problem in plan.problems:
            for line in lines_of(problem):
                stderr.print(line, soft_wrap=True)
    return _code(plan.document["problems"])


def _code(problems: list[dict[str, Any]]) -> int:
    """That of the gravest problem: wrong configuration before bad input before what may pass."""
    return max(
        (int(problem["exitCode"]) for problem in problems), key=lambda code: (code == 78, code == 65, code), default=0
    )
