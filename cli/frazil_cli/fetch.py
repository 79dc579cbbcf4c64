"""`frazil fetch`: verified copies of a job's results, from any store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frazil_cli import options
from frazil_cli.cluster import access

if TYPE_CHECKING:
    from frazil_cli.download import Wanted
    from frazil_cli.locating import Found
    from frazil_jobs.stores import ObjectStore

WHAT = "What is fetched"


def command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PREFIX|s3://…",
            help="A job's name, here or on the cluster; a prefix in the store (namespace/name-uid); or an address.",
            show_default=False,
        ),
    ],
    store: options.Store = None,
    endpoint: options.Endpoint = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            "-n",
            rich_help_panel=WHAT,
            help="The job's namespace, when a name is given.",
            show_default="default; on a cluster the context's",
        ),
    ] = None,
    context: access.Context = None,
    kubeconfig: access.Kubeconfig = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", rich_help_panel=WHAT, help="Only files that fit, such as `*.png` or `images/000012-*`."
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", rich_help_panel=WHAT, help="Take what is stored of a job that isn't finished.")
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(file_okay=False, metavar="DIR", help="Where to.", show_default="a folder here, named as the job"),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=64, help="Downloads at once.")] = 8,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Take verified copies of a job's results.

    The manifest says what there is; each file is checked against its sha256. Files that are here and right are left
    alone, so that a fetch that was stopped goes on where it was, and a damaged file is fetched again.

    A name is looked for in the store of `frazil run`; if it isn't there, or a context is named, on the cluster that kubectl
    uses: with the namespace's own right to read, at the store's public endpoint or through a forwarded port.

    Examples:

    - `frazil fetch shapes`  from ./frazil-results into ./shapes
    - `frazil fetch shapes -n team-a`  of a cluster; `kubectl frazil fetch shapes` never looks elsewhere
    - `frazil fetch shapes --store s3://bucket/prefix --endpoint http://127.0.0.1:9000 --to results`
    - `frazil fetch default/shapes-1a2b3c4d --only 'images/*'`
    - `frazil fetch s3://bucket/prefix/default/shapes-1a2b3c4d`

    Exit codes: 0 all is here · 65 the store holds something else than was made · 75 the job isn't finished, or the store
    is down · 78 no such job, or no right to read it.
    """
    from frazil_cli.bars import bar
    from frazil_cli.display import duration
    from frazil_cli.download import Done, fetch_all, matching
    from frazil_cli.fetchplace import Asked, place
    from frazil_cli.locating import how_far, say_others
    from frazil_jobs.base.exits import TryAgain

    asked = Asked(what, store, endpoint, access.Access(kubeconfig, context, namespace))
    with ExitStack() as stack:
        source, found = stack.enter_context(place(asked))
        if found.manifest is None and not partial:
            raise TryAgain(
                f"{found.prefix} isn't finished: {how_far(source, found.prefix)}, and there is no manifest yet",
                remedy="run the job to its end, or take what is there with --partial",
            )
        folder = (to or Path(_name(found))).absolute()
        started = time.monotonic()
        counts = {"files": 0, "fetched": 0, "bytes": 0}

        def note(done: Done) -> None:
            counts["files"] += 1
            counts["fetched"] += done.fetched
            counts["bytes"] += done.size
            if not done.key.startswith("thumbnails/"):
                advance()

        total = found.manifest.stored if found.manifest is not None and only is None else None
        with bar("outputs", total=total, shown=not (quiet or as_json), notes=say_others(found)) as advance:
            fetch_all(source, found.prefix, matching(_wanted(source, found), only), folder, threads=jobs, on_done=note)
        seconds = time.monotonic() - started
    result: dict[str, Any] = {
        "prefix": found.prefix,
        "to": str(folder),
        "files": counts["files"],
        "fetched": counts["fetched"],
        "alreadyHere": counts["files"] - counts["fetched"],
        "bytes": counts["bytes"],
        "seconds": round(seconds, 3),
        "complete": found.manifest is not None and only is None,
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    elif not quiet:
        _tell(result, duration(seconds))
    return 0


def _wanted(store: ObjectStore, found: Found) -> Iterator[Wanted]:
    """Everything that belongs to a job; the pages after what they show."""
    from frazil_cli.download import Wanted
    from frazil_cli.locating import outputs_below
    from frazil_jobs.api import naming
    from frazil_jobs.outputs.manifest import read_outputs
    from frazil_jobs.outputs.training_manifest import TrainingManifest

    if found.manifest is None:
        for key in outputs_below(store, found.prefix):
            yield Wanted(key)
        return
    if isinstance(found.manifest, TrainingManifest):
        for file in found.manifest.outputs:
            yield Wanted(file.key, file.sha256, file.size)
        yield Wanted(naming.MANIFEST_KEY)
        return
    manifest = found.manifest.model_copy(
        update={"prefix": found.prefix}
    )  # it may have been copied elsewhere as a whole
    for output in read_outputs(store, manifest):
        yield Wanted(output.key, output.sha256, output.size)
        if output.thumbnail:
            yield Wanted(output.thumbnail)
    for part in found.manifest.parts:
        yield Wanted(part.key, part.sha256)
    if found.manifest.gallery:
        yield Wanted(found.manifest.gallery)
    yield Wanted(naming.MANIFEST_KEY)


def _name(found: Found) -> str:
    return found.manifest.name if found.manifest is not None else found.prefix.rpartition("/")[2]


def _tell(result: dict[str, Any], took: str) -> None:
    from rich.console import Console
    from rich.text import Text

    from frazil_cli.plandrawing import size_text
    from frazil_cli.report import relative

    here = f", {result['alreadyHere']} were here already" if result["alreadyHere"] else ""
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        Text.assemble(
            ("✓ ", "bold green"),
            (f"{result['files']} files", "bold"),
            f" ({size_text(result['bytes'])}), verified, in {took}{here}",
        )
    )
    console.print(Text.assemble(("  in       ", "dim"), relative(Path(result["to"]))))
