"""`frazil plan`: what a job would do, and how fast it can be at best, before a device is taken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from frazil_cli import options
from frazil_cli.cluster import access
from frazil_cli.run import LAYOUT, Device, DeviceOption, Ranks, Replicas, Threads
from frazil_jobs.base.exits import BadConfiguration

TRAINING = "For a TrainingJob"
JobFile = Annotated[
    Path, typer.Argument(metavar="JOB.yaml", help="The job file: a GenerationJob or a TrainingJob.", show_default=False)
]


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
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            rich_help_panel=access.PANEL,
            help="Show the objects that the operator would create, and ask the cluster, if there is one, to judge them.",
        ),
    ] = False,
    namespace: access.Namespace = None,
    context: access.Context = None,
    kubeconfig: access.Kubeconfig = None,
    timings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            rich_help_panel=TRAINING,
            help="Times of actions that a run recorded.",
            show_default="counted from the model's config",
        ),
    ] = None,
    teraflops: Annotated[
        float,
        typer.Option(min=1e-6, rich_help_panel=TRAINING, help="What a device sustains, for times that are counted."),
    ] = 100.0,
    gigabytes: Annotated[
        float,
        typer.Option(
            min=1e-6, rich_help_panel=TRAINING, help="A second from rank to rank, for times that are counted."
        ),
    ] = 100.0,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", rich_help_panel=TRAINING, help="Also every other schedule and way to freeze, as a table."
        ),
    ] = False,
    gantt: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", rich_help_panel=TRAINING, help="Draw a step without and with freezing."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json", rich_help_panel=TRAINING, help="The same as a Chrome trace (ui.perfetto.dev)."
        ),
    ] = None,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Show what a job would do: ranks, shards, keys, the bound on its speed, what may change in the images; for a
    TrainingJob ranks, stages, and a simulated step without and with freezing.

    Every prompt is read and checked, and so are the files of a model that is here; no weight is loaded, nothing is
    fetched. Problems are listed as errors, all of them, and set the exit code. (A TrainingJob's data set isn't looked at:
    `frazil run` does that, before anything is loaded.)

    Examples:

    - `frazil plan job.yaml`
    - `frazil plan job.yaml --ranks 1 --quick`  in half a second
    - `frazil plan job.yaml --json | jq .outputs.count`
    - `frazil plan job.yaml --cluster -n team-a`  the manifests, and what the API server says of them (nothing is created)
    - `frazil plan train.yaml --timings timings.json --compare --gantt step.svg`

    Fields of the JSON object: `name namespace kind mode`; `outputs` (count, prompts, perPrompt, format, shards, perShard,
    promptsSha256, uid, prefix, firstKey, lastKey, firstSeed); `model` (uri, pipeline, bytes, dtype); `guidance` (style,
    branches, reason); `here` (device, ranks, replicas, threads, degrees, grid, notes); `cluster` (replicas, podsAtOnce,
    gpusAtOnce, indices, objects; with --cluster also namespace, manifests, server (context, trials), notes); `speedUp`
    (bound, measuredBound, measure); `modes` (rows (mode, own, gpus, degrees, bound, approximatedSteps, bytesPerStep,
    changes), notCounted: every mode's cost on the job's grid, counted for this model and size; own: the job's choice);
    `message` (bytesPerStep, perStep, steps, what); `changes`; `problems` (field, message, remedy, exitCode). What can't be
    known here is null.

    Of a TrainingJob: `name namespace kind task`; `model` (uri, blocks); `batch` (size, accumulation, microbatches,
    microbatchSize); `ranks` (pipeline, data, grid); `schedule` (name, stages, partition, blocks, microbatchesHeld);
    `timings` (provenance, source, relative, hopSeconds); `step` (unfrozenSeconds, seconds, totalSeconds, speedUp,
    speedUpBound, unfrozenBubbleShare, bubbleShare, noise); `freezing` (method, selection, maxFreezeRatio, slackPercent,
    meanFreezeRatio, stageMeans, gradientRate, planSha256); `comparison` (methods, rows, reach); `cluster` (pods,
    gpusPerPod, objects; with --cluster as above); `problems`.
    """
    from rich.console import Console

    from frazil_cli.errors import lines_of
    from frazil_cli.planning import document_of, make_plan
    from frazil_cli.prepare import Wishes, store_config
    from frazil_jobs.api.load import load_job
    from frazil_jobs.api.trainingjob import TrainingJob

    loaded = load_job(job)
    given = {"--timings": timings, "--compare": compare, "--gantt": gantt, "--trace": trace}
    if isinstance(loaded, TrainingJob):
        _refuse({"--ranks": ranks, "--replicas": replicas, "--threads": threads, "--quick": quick}, "GenerationJob")
        from frazil_cli.trainingplan.command import Asked, show

        asked = Asked(
            file=job,
            store=store_config(store, endpoint),
            timings=timings,
            teraflops=teraflops,
            gigabytes=gigabytes,
            compare=compare,
            gantt=gantt,
            trace=trace,
            cluster=access.Access(kubeconfig, context, namespace) if cluster else None,
        )
        return _code(show(loaded, asked, as_json=as_json))
    _refuse(given, "TrainingJob")
    wishes = Wishes(device=device.value, ranks=ranks, replicas=replicas, threads=threads)
    stderr = Console(stderr=True, highlight=False)
    out = Console(highlight=False)
    on = None
    with stderr.status("reading the job, its prompts and its model"):
        plan = make_plan(job, store=store_config(store, endpoint), wishes=wishes, quick=quick)
    if cluster and plan.job is not None:
        from frazil_cli.cluster import planned

        with stderr.status("asking the cluster"):
            pin = plan.pin.model_dump(mode="json") if plan.pin else None
            on = planned.on_cluster(job, plan.job, pin, access.Access(kubeconfig, context, namespace))
        plan.document["cluster"] |= on.document()
        plan.problems += on.problems
    document = document_of(plan)
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        from frazil_cli.plandrawing import draw

        draw(document, out)
        if on is not None:
            planned.draw(on, out)
        for problem in plan.problems:
            for line in lines_of(problem):
                stderr.print(line, soft_wrap=True)
    return _code(document["problems"])


def _refuse(options: Mapping[str, object], kind: str) -> None:
    """Raise for an option that is for jobs of the other kind."""
    for name, value in options.items():
        if value:
            raise BadConfiguration(f"is for a {kind}", field=name, remedy="leave it out")


def _code(problems: list[dict[str, Any]]) -> int:
    """That of the gravest problem: wrong configuration before bad input before what may pass."""
    return max(
        (int(problem["exitCode"]) for problem in problems), key=lambda code: (code == 78, code == 65, code), default=0
    )
