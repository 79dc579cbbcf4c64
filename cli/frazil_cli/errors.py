"""The boundary where an error becomes one message and an exit code: the field, what is wrong, the way out; no traceback.

Results go to stdout, everything else to stderr. `--json` commands put the error on stdout as an object as well, so that a
program reads one stream.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.text import Text
from typer import rich_utils

from frazil_jobs.base.exits import OK, TEMPFAIL, FrazilError, exit_code_of

USAGE = 64
"""EX_USAGE of sysexits: the command line itself is wrong."""
BROKEN_PIPE = 0
"""`frazil plan … | head` is no failure."""


@dataclass
class Invocation:
    """What the person asked of this one call of the command. Set by options, read by the boundary."""

    debug: bool = False
    as_json: bool = False


invocation = Invocation()


class ComponentFailed(FrazilError):
    """A process of the run failed: its own last words, and where the whole log is."""

    def __init__(
        self, message: str, *, exit_code: int, details: str = "", log: str = "", remedy: str | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.code = exit_code
        self.details = details
        self.log = log


def code_of(error: BaseException) -> int:
    """The exit code of this command for `error`."""
    return error.code if isinstance(error, ComponentFailed) else exit_code_of(error)


def guard(call: Callable[[], object]) -> int:
    """Run a command. Returns the exit code; the message, if any, is on stderr."""
    try:
        result = call()
        return result if isinstance(result, int) else OK
    except typer.TyperException as error:
        rich_utils.rich_format_error(error)  # type: ignore[arg-type]  # its own class isn't public
        return USAGE
    except typer.Abort:
        return TEMPFAIL
    except BrokenPipeError:
        sys.stderr.close()
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        report(error)
        return code_of(error)


def report(error: BaseException) -> None:
    """Tell a person, once."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if invocation.debug:
        console.print(Text("".join(traceback.format_exception(error)), style="dim"), end="")
    if isinstance(error, ComponentFailed) and error.details:
        console.print(Text(error.details.rstrip(), style="dim"))
    for line in lines_of(error):
        console.print(line)
    if invocation.as_json:
        print(json.dumps({"error": as_object(error)}, indent=2))


def lines_of(error: BaseException) -> Sequence[Text]:
    """The message as lines: what, then the way out, then the log."""
    if not isinstance(error, FrazilError):
        if isinstance(error, KeyboardInterrupt):
            return [_first("stopped", None)]
        lines = [_first(f"{type(error).__name__}: {error}", None)]
        if not invocation.debug:
            lines.append(_next("this is a fault of Frazil: --debug shows where"))
        return lines
    lines = [_first(error.message, error.field)]
    if error.remedy:
        lines.append(_next(error.remedy))
    if isinstance(error, ComponentFailed) and error.log:
        lines.append(_next(f"log: {error.log}"))
    return lines


def as_object(error: BaseException) -> dict[str, object]:
    """The error of `--json`."""
    known = isinstance(error, FrazilError)
    return {
        "message": error.message if isinstance(error, FrazilError) else f"{type(error).__name__}: {error}",
        "field": error.field if isinstance(error, FrazilError) else None,
        "remedy": error.remedy if isinstance(error, FrazilError) else None,
        "exitCode": code_of(error),
        "known": known,
    }


def _first(message: str, field: str | None) -> Text:
    text = Text.assemble(("error: ", "bold red"))
    if field:
        text.append(f"{field}: ", style="bold")
    return text.append(message)


def _next(message: str) -> Text:
    return Text.assemble(("  → ", "cyan"), message)
