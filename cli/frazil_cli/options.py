"""Options that several commands share, said once."""

from __future__ import annotations

from typing import Annotated

import typer

from frazil_cli.errors import invocation


def _debug(value: bool) -> bool:
    invocation.debug = invocation.debug or value
    return value


def note_json(value: bool) -> bool:
    """Errors become objects as well."""
    invocation.as_json = invocation.as_json or value
    return value


STORE = "The object store"
SCREEN = "What you see"

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DIR|s3://BUCKET/PREFIX",
        envvar="FRAZIL_STORE",
        rich_help_panel=STORE,
        help="Where results go and come from: a folder, or a bucket of any S3 endpoint.",
        show_default="frazil-results",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        envvar="FRAZIL_S3_ENDPOINT",
        rich_help_panel=STORE,
        help="The S3 endpoint. Its keys come from FRAZIL_S3_ACCESS_KEY and FRAZIL_S3_SECRET_KEY (or `*_FILE`) alone.",
    ),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", callback=_debug, rich_help_panel=SCREEN, help="Show the traceback of an error."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=SCREEN, help="Say nothing but errors.")]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=note_json,
        rich_help_panel=SCREEN,
        help="Print one JSON object on stdout; an error is one as well.",
    ),
]
