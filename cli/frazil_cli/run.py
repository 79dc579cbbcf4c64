"""`frazil run`: a job on this machine, with nothing to install or start besides."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frazil_cli import options

if TYPE_CHECKING:
    from frazil_cli.display import Display
    from frazil_cli.localrun import RunSettings
    from frazil_cli.prepare import Wishes
    from frazil_jobs.api.trainingjob import TrainingJob

LAYOUT = "How it's laid out (the best for this machine by default)"
TROUBLE = "When something breaks"


class Device(StrEnum):
    """Where the ranks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


JobFile = Annotated[
    Path, typer.Argument(metavar="JOB.yaml", help="The job file: a GenerationJob or a TrainingJob.", show_default=False)
]
Ranks = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=LAYOUT,
        help="Ranks of one replica: all degrees of the job multiplied, or 1 for one device.",
        show_default="one a GPU, or a core",
    ),
]
Replicas = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=LAYOUT,
        help="Replicas, each on shards of its own.",
        show_default="as many as there are GPUs for",
    ),
]
DeviceOption = Annotated[Device, typer.Option(rich_help_panel=LAYOUT, help="Where the ranks run; auto prefers GPUs.")]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, rich_help_panel=LAYOUT, help="CPU threads of one rank.", show_default="the cores, shared evenly"
    ),
]


def command(
    job: JobFile,
    store: options.Store = None,
    endpoint: options.Endpoint = None,
    ranks: Ranks = None,
    replicas: Replicas = None,
    device: DeviceOption = Device.AUTO,
    threads: Threads = None,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            max=20,
            rich_help_panel=TROUBLE,
            help="Start ranks that died again, so often. (In a cluster: spec.failurePolicy.)",
        ),
    ] = 0,
    store_timeout: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            rich_help_panel=TROUBLE,
            help="Go on without the store so long, into the spool; then stop.",
        ),
    ] = 600,
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            rich_help_panel=TROUBLE,
            help="After Ctrl-C: time to finish the images in hand, or to store a checkpoint.",
        ),
    ] = 25,
    keep_spool: Annotated[
        bool,
        typer.Option("--keep-spool", rich_help_panel=TROUBLE, help="Keep spool and task after a success, to look at."),
    ] = False,
    work_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="FRAZIL_WORK_DIR",
            file_okay=False,
            rich_help_panel=TROUBLE,
            help="Where spools and logs of runs are.",
            show_default="~/.cache/frazil/runs",
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL", envvar="FRAZIL_REDIS_URL", rich_help_panel=TROUBLE, help="Use this Redis, start none."
        ),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Run a job here: make every image that isn't stored yet, then the manifest and the gallery; or train from the newest
    checkpoint on, then store the model and its report.

    Everything runs as it does in a cluster's pod: a fetch process, the ranks, a Celery worker that stores what they make.
    An embedded Redis is started and ended with the run. What is stored stays stored: **run the same command again after
    any failure, or after Ctrl-C, and it finishes the rest**. A changed job file is another job, with a folder of its own.

    Examples:

    - `frazil run job.yaml`  into ./frazil-results
    - `frazil run job.yaml --store s3://bucket/prefix --endpoint http://127.0.0.1:9000`
    - `frazil run job.yaml --ranks 1 --device cpu`  one rank that evaluates both branches
    - `frazil run job.yaml --json | jq .imagesPerSecond`
    - `frazil run train.yaml`  a TrainingJob: one process a rank; Ctrl-C stores a checkpoint

    Fields of the JSON object: `name uid store prefix results manifest gallery images generated alreadyStored seconds
    generatingSeconds` (from the first step on) `imagesPerSecond` (in those) `mode device ranks replicas threads next`.

    Exit codes: 0 all is stored · 65 a prompt can't be used · 75 stopped, or something was down: run it again · 78 the job
    can't work as written.
    """
    from frazil_cli import display
    from frazil_cli.localrun import RunSettings
    from frazil_cli.prepare import Wishes, store_config
    from frazil_jobs.api.load import load_job
    from frazil_jobs.api.trainingjob import TrainingJob

    config = store_config(store, endpoint)
    wishes = Wishes(device=device.value, ranks=ranks, replicas=replicas, threads=threads)
    settings = RunSettings(
        store=config,
        redis_url=redis,
        retries=retries,
        store_timeout=store_timeout,
        grace=grace,
        keep_spool=keep_spool,
    )
    shown = display.choose(quiet=quiet, as_json=as_json)
    loaded = load_job(job)
    if isinstance(loaded, TrainingJob):
        found = _train(loaded, job, wishes, settings, shown, work_dir)
    else:
        found = _generate(job, wishes, settings, shown, work_dir)
    if as_json:
        typer.echo(json.dumps(found.document, indent=2))
    elif not quiet:
        found.print(found.document)
    return 0


@dataclass(frozen=True)
class _Ended:
    """What a run leaves, and how it's told to people."""

    document: dict[str, Any]
    print: Callable[[dict[str, Any]], None]


def _generate(job: Path, wishes: Wishes, settings: RunSettings, shown: Display, work_dir: Path | None) -> _Ended:
    from frazil_cli.generationrun import GenerationRun
    from frazil_cli.preflight import check_store
    from frazil_cli.prepare import prepare
    from frazil_cli.report import as_object, opening, print_result
    from frazil_cli.workspace import workspace

    config = settings.store
    prepared = prepare(job, store=config, wishes=wishes)
    check_store(config, prepared)
    space = workspace(
        name=prepared.job.metadata.name,
        uid=prepared.uid,
        store=config.where,
        prefix=prepared.prefix,
        work_dir=work_dir,
    )
    for line in opening(prepared, config):
        shown.say(line)
    result = GenerationRun(prepared, settings, space, shown)()
    return _Ended(as_object(prepared, config, result), print_result)


def _train(
    job: TrainingJob, file: Path, wishes: Wishes, settings: RunSettings, shown: Display, work_dir: Path | None
) -> _Ended:
    from frazil_cli.preflight import check_store
    from frazil_cli.preparetraining import look_before, prepare_training
    from frazil_cli.trainingreport import as_object, opening, print_result
    from frazil_cli.trainingrun import TrainingRun
    from frazil_cli.workspace import workspace

    config = settings.store
    prepared = prepare_training(job, file, store=config, wishes=wishes)
    check_store(config, prepared)
    before = look_before(config, prepared.prefix, resumes=job.spec.checkpoint.resume == "Latest")
    space = workspace(
        name=job.metadata.name, uid=prepared.uid, store=config.where, prefix=prepared.prefix, work_dir=work_dir
    )
    for line in opening(prepared, config):
        shown.say(line)
    result = TrainingRun(prepared, settings, space, shown, before=before)()
    return _Ended(as_object(prepared, config, result), print_result)
