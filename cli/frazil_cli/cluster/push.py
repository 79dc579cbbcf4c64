"""`frazil push`: a model, prompts or a data set from here into a namespace's part of the cluster's store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from frazil_cli import options
from frazil_cli.cluster import access

FILES = "prompts"
FOLDERS = "models"


def command(
    path: Annotated[
        Path,
        typer.Argument(exists=True, metavar="PATH", help="A folder or a file of this machine.", show_default=False),
    ],
    to: Annotated[
        str | None,
        typer.Argument(
            metavar="[AS]",
            help="Its name in the namespace's part of the store.",
            show_default=f"{FOLDERS}/FOLDER, {FILES}/FILE",
        ),
    ] = None,
    namespace: access.Namespace = None,
    context: access.Context = None,
    kubeconfig: access.Kubeconfig = None,
    destination: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=access.PANEL, help="Which of the chart's destinations.")
    ] = "default",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Uploads at once.")] = 8,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", rich_help_panel=options.SCREEN, help="Say nothing but the address.")
    ] = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Put a model, prompts or a data set where jobs of a cluster can read it.

    Jobs of a namespace read from its own part of the store. What is put there is named by the address that this prints:
    as `model.uri`, `prompts.uri` or `dataset.uri`. Files that are there with the same bytes are left alone, so that a push
    that was stopped goes on where it was; nothing is ever removed. Hidden files are left out.

    It uses the namespace's own right to write, at the store's public endpoint or through a forwarded port.

    Examples:

    - `frazil push examples/shapes/model -n team-a`  s3://frazil/results/team-a/models/model
    - `frazil push examples/shapes/model models/shapes -n team-a`
    - `frazil push prompts.jsonl -n team-a`
    - `frazil push pictures data/pictures -n team-a`  for a TrainingJob

    Exit codes: 0 all is there · 65 there is nothing to push · 75 the store is down: run it again · 78 no such namespace,
    or no right to write.
    """
    from frazil_cli.bars import bar
    from frazil_cli.cluster.client import Cluster
    from frazil_cli.cluster.results import WRITE, opened, rights
    from frazil_cli.display import duration
    from frazil_cli.upload import files_of, push_all, target
    from frazil_jobs.stores import open_store

    files = files_of(path)
    name = target(to, f"{FOLDERS if path.is_dir() else FILES}/{path.resolve().name}")
    cluster = Cluster.connect(access.Access(kubeconfig, context, namespace))
    started = time.monotonic()
    counts = {"files": 0, "pushed": 0, "bytes": 0}
    with opened(cluster, rights(cluster, destination, WRITE)) as config:
        prefix = f"{cluster.namespace}/{name}"
        with bar("files", total=len(files), shown=not (quiet or as_json)) as advance:
            for done in push_all(open_store(config), prefix, files, threads=jobs):
                counts["files"] += 1
                counts["pushed"] += done.pushed
                counts["bytes"] += done.size
                advance()
        uri = f"{config.uri.rstrip('/')}/{prefix}"
    result: dict[str, Any] = {
        "uri": uri,
        "files": counts["files"],
        "pushed": counts["pushed"],
        "alreadyThere": counts["files"] - counts["pushed"],
        "bytes": counts["bytes"],
        "seconds": round(time.monotonic() - started, 3),
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    elif quiet:
        typer.echo(uri)
    else:
        _tell(result, duration(result["seconds"]))
    return 0


def _tell(result: dict[str, Any], took: str) -> None:
    from rich.console import Console
    from rich.text import Text

    from frazil_cli.plandrawing import size_text

    there = f", {result['alreadyThere']} were there already" if result["alreadyThere"] else ""
    console = Console(highlight=False, soft_wrap=True)
    words = f" ({size_text(result['bytes'])}) in {took}{there}"
    console.print(Text.assemble(("✓ ", "bold green"), (f"{result['files']} files", "bold"), words))
    console.print(Text.assemble(("  uri      ", "dim"), result["uri"]))
