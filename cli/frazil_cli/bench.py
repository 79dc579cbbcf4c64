"""`frazil bench`: every speed figure of the README is one of these commands away, compared with its physical bound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from frazil_cli.bench_convergence.command import convergence

if TYPE_CHECKING:
    from frazil_cli.bench_modes.reports import Report

app = typer.Typer(
    help="Measure a mode against one device, here: medians of ratios, interleaved, beside the bound.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.callback()
def _bench() -> None:
    """Measure a mode against one device, here: medians of ratios, interleaved, beside the bound."""
    from frazil_jobs.base import log

    log.configure("bench")


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


@app.command("counts")
def counts(
    model: Annotated[
        list[str] | None,
        typer.Option(help="sdxl, sd3 or a pipeline folder; may be repeated. Both published ones when left out."),
    ] = None,
    size: Annotated[
        list[int] | None, typer.Option(min=64, help="Side of the picture in pixels; may be repeated. 1024 to 2560.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables as Markdown, all sizes of a model side by side.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects, one a scheme and size.")] = False,
) -> None:
    """What each way of sharing an image computes and sends, counted at real sizes: no weights, no GPU, no clock.

    Multiply-adds of the busiest rank over 50 steps and bytes between GPUs in half precision, for our modes and for
    DistriFusion's, AsyncDiff's, PipeFusion's, xDiT's and Hybridiff's published schemes. `bound` is one GPU's work over the
    busiest rank's: messages free, and batch 2 at twice batch 1.

    Examples:

    - `frazil bench counts`
    - `frazil bench counts --model sdxl --size 1024 --json`
    - `frazil bench counts --model path/to/pipeline --size 1024`
    """
    from frazil_cli import bench_counts

    console = Console(stderr=True)
    with console.status("counting on tensors without memory"):
        found = list(bench_counts.rows(model or ("sdxl", "sd3"), size or bench_counts.SIZES))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    out = Console(width=max(console.width, 160)) if not console.is_terminal else Console()
    if markdown:
        for name in dict.fromkeys(document["model"] for document in found):
            typer.echo(bench_counts.markdown([document for document in found if document["model"] == name]))
        return
    for run in bench_counts.by_size(found):
        out.print(bench_counts.table(run))


Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--setting",
        help="A mode and its switching, as `Guided:budget=45,predictorOrder=1`; may be repeated. A fixed list if left out.",
    ),
]
ModelFolder = Annotated[
    Path, typer.Option("--model", exists=True, file_okay=False, help="A pipeline folder, run in float32 on the CPU.")
]
PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts", exists=True, dir_okay=False, help="jsonl or text. Left out: those of the shapes model."),
]
Steps = Annotated[int, typer.Option(min=4, help="Denoising steps.")]
Scale = Annotated[float, typer.Option("--guidance", help="Guidance scale.")]
Side = Annotated[
    int | None, typer.Option("--size", min=16, help="Height and width in pixels; the model's own if left out.")
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown, as docs/modes.md has it.")]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", dir_okay=False, help="Draw speed against distance into this SVG.")
]


BUDGETS = (30, 35, 40, 45, 50)
SHAPES = (Path("examples/shapes/model"), Path("examples/shapes/unet"))


@app.command("quality")
def quality(
    setting: Settings = None,
    model: ModelFolder = Path("examples/shapes/model"),
    prompts: PromptsFile = None,
    count: Annotated[
        int, typer.Option(min=2, help="Pictures of each setting: prompts, each with a seed of its own.")
    ] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a call.")] = 8,
    steps: Steps = 50,
    guidance: Scale = 4.0,
    size: Side = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture, and of the choice of prompts.")] = 0,
    plot: PlotFile = None,
    strip: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Save the first pictures of every setting side by side (PNG or WebP)."),
    ] = None,
    strip_rows: Annotated[int, typer.Option(min=1, help="How many of them.")] = 3,
    markdown: Markdown = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects, one a setting.")] = False,
) -> None:
    """How far each setting's pictures are from mode Exact's, picture by picture, from the same seeds.

    Runs the modes in this process, as ranks would to the bit. Medians and the value that nine pictures in ten reach, of
    PSNR, SSIM and the latents' relative error; the share of pictures that show their prompts, where a reader is at hand;
    LPIPS and CLIP scores where their weights are, else it is said why not, as it is of FID. The speed beside it is the
    bound of the operation count.

    Examples:

    - `frazil bench quality --plot frontier.svg`
    - `frazil bench quality --setting Guided:budget=45 --setting Hybrid --count 128 --json`
    - `frazil bench quality --setting Guided:budget=30 --setting Hybrid --count 8 --strip strip.png`
    """
    from frazil_cli.bench_modes import drawing, reports
    from frazil_cli.bench_modes.drift import drift
    from frazil_cli.bench_modes.settings import FRONTIER, parsed
    from frazil_cli.bench_modes.strip import strip as side_by_side

    console = Console(stderr=True)
    subject, reader = _subject(model, prompts, count=count, steps=steps, guidance=guidance, size=size, seed=seed)
    columns: dict[str, Any] = {}
    with console.status("loading") as status:
        rows = drift(
            subject,
            parsed(setting or FRONTIER),
            count=count,
            batch=batch,
            seed=1000 * seed,
            reader=reader,
            say=status.update,
            show=lambda setting, pictures: columns.update({setting.text: pictures[:strip_rows]}),
        )
    title = f"{count} pictures of {model}, {steps} steps, guidance {guidance:g}, against Exact"
    if plot is not None:
        dots = drawing.dots_of(rows, speed="bound_over_exact")
        plot.write_text(drawing.frontier(dots, title=title, speed_title="speed over the exact split (operation count)"))
    if strip is not None:
        side_by_side(columns, enlarged=2).save(strip, quality=90)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _show(reports.drift_report(rows, title), markdown=markdown)
    for name, why in rows[0]["not_computed"].items():
        console.print(f"{name} isn't computed: {why}", style="dim")


@app.command("budget")
def budget(
    budgets: Annotated[
        list[int] | None,
        typer.Option("--budget", help="In decibels; may be repeated. 30, 35, 40, 45 and 50 if left out."),
    ] = None,
    model: Annotated[
        list[Path] | None,
        typer.Option("--model", exists=True, file_okay=False, help="May be repeated. Both shapes models if left out."),
    ] = None,
    prompts: PromptsFile = None,
    scheduler: Annotated[
        list[str] | None, typer.Option(help="A class of diffusers; may be repeated. The model's own if left out.")
    ] = None,
    steps: Annotated[list[int] | None, typer.Option(min=4, help="May be repeated. 50 if left out.")] = None,
    refresh_every: Annotated[int, typer.Option(min=1, help="As in the job file.")] = 4,
    order: Annotated[int, typer.Option(min=0, max=2, help="Of the forecast.")] = 1,
    conditioning: Annotated[int, typer.Option(min=1, max=2, help="As in the job file.")] = 2,
    pipeline: Annotated[int, typer.Option(min=1, help="As in the job file: more than 1 measures stages.")] = 1,
    count: Annotated[int, typer.Option(min=1, help="Pictures of each row.")] = 32,
    guidance: Scale = 4.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Of pictures and choice of prompts. Pictures of 0 and 100 were used for tuning.")
    ] = 1,
    markdown: Markdown = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """Whether mode Guided keeps its budget: how many pictures end within the PSNR to exact that was asked for.

    Runs in this process, every picture a call of its own. `kept` is to be 95 % on pictures that no constant was chosen on:
    the shapes model is asked for none of the prompts that tuning drew.
    `error_over_allowed` says how well the policy's constant `safety` fits: above 1 it's too small by that factor, below 1
    speed is given away.

    Examples:

    - `frazil bench budget`
    - `frazil bench budget --budget 30 --refresh-every 8`
    - `frazil bench budget --model examples/shapes/model --pipeline 2`  stages, of both branches
    - `frazil bench budget --scheduler DDIMScheduler --scheduler DPMSolverMultistepScheduler --steps 25 --steps 50 --json`
    """
    from frazil_cli.bench_modes import reports
    from frazil_cli.bench_modes.keeping import keeping

    rows: list[dict[str, Any]] = []
    switchings = [f"budget={one},predictorOrder={order},refreshEvery={refresh_every}" for one in budgets or BUDGETS]
    degrees = f",conditioning={conditioning}" * (conditioning != 2) + f",pipeline={pipeline}" * (pipeline != 1)
    switchings = [switching + degrees for switching in switchings]
    with Console(stderr=True).status("loading") as status:
        for folder in model or SHAPES:
            for name in scheduler or (None,):
                for number in steps or [50]:
                    subject, _ = _subject(
                        folder,
                        prompts,
                        count=count,
                        steps=number,
                        guidance=guidance,
                        size=None,
                        seed=seed,
                        held_out=True,
                    )
                    rows += keeping(subject, name, switchings, count=count, seed=1000 * seed, say=status.update)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _show(reports.keeping_report(rows, f"{count} pictures a row, seed {seed}"), markdown=markdown)


def _show(report: Report, *, markdown: bool) -> None:
    if markdown:
        typer.echo(report.markdown())
    else:
        Console().print(report.table())


@app.command("modes")
def modes(
    setting: Settings = None,
    model: ModelFolder = Path("examples/shapes/model"),
    prompts: PromptsFile = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after the first, which is dropped.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a call. A branch should take 50 ms or more.")] = 16,
    count: Annotated[int, typer.Option(min=0, help="Pictures of each setting for the distance; 0 leaves it out.")] = 64,
    steps: Steps = 50,
    guidance: Scale = 4.0,
    size: Side = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture, and of the choice of prompts.")] = 0,
    plot: PlotFile = None,
    markdown: Markdown = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects, one a setting.")] = False,
) -> None:
    """Each mode's speed on two ranks of one thread, each pinned to a core, beside its bound and its distance to exact.

    Every round runs each setting's whole loop once, in an order that turns: ratios are taken round by round, and their
    medians reported. `over one rank` is against its stock call, `over exact` against the exact split on two ranks. The
    bound is the operation count of the steps that ran. The same reuse on one rank (`conditioning=1`) stands in the table,
    too; a setting of more than two ranks is refused.

    Fields of the JSON: `mode setting conditioning ranks speedup_over_one speedup_over_exact bound_over_exact of_bound
    spread_over_exact step_over_exact steps_measured counted_step branch_ms rounds batch psnr_db psnr_db_worst_tenth ssim
    latent_relative_error prompt_accuracy budget_kept pictures`, and more of the distance; null where it wasn't measured.

    Examples:

    - `frazil bench modes`
    - `frazil bench modes --size 128 --rounds 3 --count 0 --setting Guided:budget=45,predictorOrder=2,refreshEvery=2`
    - `frazil bench modes --setting Guided:budget=40 --plot modes.svg --json > modes.json`
    - `frazil bench modes --model examples/shapes/unet --count 0`
    - `for size in 64 96 128; do frazil bench modes --count 0 --size $size --json; done`  a sweep over sizes
    """
    from frazil_cli.bench_modes import drawing, reports
    from frazil_cli.bench_modes.drift import drift
    from frazil_cli.bench_modes.settings import SPEED, parsed
    from frazil_cli.bench_modes.speed import speeds

    console = Console(stderr=True)
    settings = parsed(setting or SPEED)
    subject, reader = _subject(
        model, prompts, count=max(count, batch), steps=steps, guidance=guidance, size=size, seed=seed
    )
    with console.status("measuring on two ranks") as status:
        rows = speeds(subject, settings, rounds=rounds, batch=batch)
        found: list[dict[str, object]] = []
        if count:
            found = drift(
                subject, settings, count=count, batch=batch, seed=1000 * seed, reader=reader, say=status.update
            )
    rows = reports.joined(rows, found)
    title = f"{model}, {steps} steps, {batch} pictures a call, two cores"
    if plot is not None:
        dots = drawing.dots_of(rows, speed="speedup_over_exact")
        plot.write_text(drawing.frontier(dots, title=title, speed_title="speed over the exact split (measured)"))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _show(reports.speed_report(rows, title), markdown=markdown)


def _subject(
    model: Path,
    prompts: Path | None,
    *,
    count: int,
    steps: int,
    guidance: float,
    size: int | None,
    seed: int,
    held_out: bool = False,
) -> Any:
    """What is measured, and who reads its pictures (None where nobody can). `held_out`: no prompt that tuning drew."""
    from frazil_cli.bench_modes import subject
    from frazil_jobs.base.exits import BadConfiguration

    shapes = subject.shapes_beside(model)
    if prompts is None and shapes is None:
        raise BadConfiguration(f"{model} is not the shapes model", field="--prompts", remedy="name a file of prompts")
    if prompts is not None:
        texts, reader = subject.prompts_of(prompts), None
    else:
        assert shapes is not None
        without = subject.tuning_prompts(shapes) if held_out else frozenset()
        texts = subject.shapes_prompts(shapes, count, seed, without=without)
        reader = subject.shapes_reader(shapes)
    found = subject.Subject(model=str(model), steps=steps, guidance_scale=guidance, prompts=texts, size=size)
    return found, reader


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


@app.command("training")
def training(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds after the first, which is dropped.")] = 7,
    least_ms: Annotated[
        float, typer.Option(min=1, help="The shortest action's milliseconds: from 20 on, sleeping is exact.")
    ] = 20.0,
    max_freeze_ratio: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest mean freeze ratio of a stage, for every method (published: 0.8)."),
    ] = 0.8,
    schedule: Annotated[
        list[str] | None,
        typer.Option(help="GPipe, 1F1B, Interleaved1F1B, ZBV or ZBH1; may be given again. Left out: all."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Schedules and ways to freeze side by side, on four emulated devices: measured against predicted.

    Each device's forward, dX and dW sleep as long as those of the published 8B run took, multiplied until the shortest
    action takes `--least-ms`; nothing is tuned. Sleeping needs no core, so four devices run side by side anywhere. What is
    real: torch's schedules and messages, autograd, the masks. Rows run in turn in every round; ratios are taken round by
    round. `speedup` is over 1F1B with nothing frozen, `speedup_of_schedule` over the same schedule with nothing frozen.
    What a step takes over the predicted (`residue`) has three parts: tensors that were drawn, whose times aren't the
    ratio's to the last microbatch; actions that took longer than told; and what lies between actions.

    Takes about ten minutes. Examples:

    - `frazil bench training`
    - `frazil bench training --schedule 1F1B --schedule ZBH1 --json > training.json`
    """
    from frazil_cli.bench_training.measure import Settings, measure
    from frazil_jobs.api.pipelining import Schedule

    known: tuple[Any, ...] = get_args(Schedule)
    chosen = tuple(name for name in known if not schedule or name in schedule)
    if unknown := sorted(set(schedule or ()) - set(known)):
        raise typer.BadParameter(f"{unknown[0]!r}: choose of {', '.join(known)}", param_hint="--schedule")
    settings = Settings(
        rounds=rounds,
        least_ms=least_ms,
        max_ratio=max_freeze_ratio,
        schedules=chosen,
    )
    with Console(stderr=True).status("measuring: starting four ranks") as status:
        result = measure(settings, status.update)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    Console().print(_training_table(result))


app.command("convergence")(convergence)


_RESIDUES = {
    "tensors": "residue_of_drawing",
    "actions": "residue_of_actions",
    "between": "residue_between_actions",
}
"""Parts of what a step takes over the predicted, by column."""


def _training_table(result: dict[str, Any]) -> Table:
    table = Table(title=f"Training: {result['model']}", title_justify="left")
    for name in ("schedule", "method"):
        table.add_column(name)
    figures = ("speed-up", "predicted", "of its schedule", "frozen", "gradients/s", "s a step", "over predicted")
    for name in (*figures, *_RESIDUES):
        table.add_column(name, justify="right")
    for row in result["rows"]:
        if row["method"] == "none" and table.rows:
            table.add_section()
        table.add_row(
            row["schedule"],
            row["method"],
            *(
                f"{row[name]:.2f}"
                for name in ("speedup", "predicted_speedup", "speedup_of_schedule", "mean_freeze_ratio")
            ),
            f"{row['gradient_rate']:.2f}",
            f"{row['seconds']:.2f}",
            *(f"{row[name]:+.1%}" for name in ("residue", *_RESIDUES.values())),
        )
    return table


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
