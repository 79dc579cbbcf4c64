"""`frazil`: the commands, and the boundary that turns errors into messages and exit codes.

Also installed as `kubectl-frazil`, so that `kubectl frazil fetch NAME` works. What a command needs is imported when it
runs: `frazil --help` costs a tenth of a second.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from frazil_cli import bench, fetch, options, plan, run
from frazil_cli.cluster import doctor, push, watch
from frazil_cli.errors import guard

EXIT_CODES = """
Exit codes (sysexits): 0 done · 64 wrong usage · 65 bad input · 75 try again, nothing is lost · 78 wrong configuration · 1 a
fault of Frazil.
"""

app = typer.Typer(
    name="frazil",
    help="""Batch jobs for diffusion models: one file says what to make, every device here or in a cluster makes it.

    Try it:

    - `frazil plan job.yaml`  what would run, and how fast it can be at best
    - `frazil run job.yaml`  run it on this machine, into ./frazil-results
    - `frazil fetch NAME`  take verified copies of the results, of a run here or of a cluster's job
    - `frazil push FOLDER`  a model of yours into a cluster's store, for jobs there
    - `frazil watch NAME`  how a job on a cluster gets on; `frazil doctor` when something is wrong there
    """
    + EXIT_CODES,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"frazil {metadata.version('frazil')}")
        raise typer.Exit


@app.callback()
def _frazil(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    pass


app.command("run", rich_help_panel="On this machine")(run.command)
app.command("plan", rich_help_panel="On this machine")(plan.command)
app.add_typer(bench.app, name="bench", rich_help_panel="On this machine")
app.command("fetch", rich_help_panel="Results")(fetch.command)
app.command("push", rich_help_panel="On a cluster")(push.command)
app.command("watch", rich_help_panel="On a cluster")(watch.command)
app.command("doctor", rich_help_panel="On a cluster")(doctor.command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the console script."""
    called_as = Path(sys.argv[0]).name
    name = "kubectl frazil" if called_as == "kubectl-frazil" else "frazil"
    code = guard(lambda: get_command(app).main(args=arguments, prog_name=name, standalone_mode=False))
    sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
