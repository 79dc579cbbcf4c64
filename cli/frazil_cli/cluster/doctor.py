"""`frazil doctor`: the ten things that go wrong most on a cluster, looked for, each with the remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from frazil_cli import options
from frazil_cli.cluster import access

if TYPE_CHECKING:
    from rich.console import Console

    from frazil_cli.cluster.observed import Finding, Observed

WRONG: Final = 1
MARKS: Final = {"ok": ("✓", "green"), "wrong": ("✗", "bold red"), "unknown": ("–", "yellow")}


def command(
    namespace: access.Namespace = None,
    context: access.Context = None,
    kubeconfig: access.Kubeconfig = None,
    system: Annotated[
        str | None,
        typer.Option(
            "--system-namespace",
            metavar="NAMESPACE",
            rich_help_panel=access.PANEL,
            help="Where Frazil is installed.",
            show_default="found by its labels",
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe/--no-probe", help="Ask broker and store with this namespace's Secrets, through forwarded ports."
        ),
    ] = True,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Look for what goes wrong most often on a cluster, and say what to do about it.

    It checks that the definitions are there and current, that the operator runs and leads, that nodes offer the GPUs that
    jobs ask for, quotas and queues, images, broker, store and worker, the Secrets of the namespace, gang scheduling, and
    that the pods of a job are let in (a dry run). It changes nothing. ✓ is well, ✗ is wrong, – can't be told with your
    rights.

    Examples:

    - `frazil doctor -n team-a`
    - `frazil doctor --json | jq '.findings[] | select(.state == "wrong")'`

    Fields of the JSON object: `context namespace ok findings`; a finding has `check state message remedy details`.

    Exit codes: 0 nothing is wrong · 1 something is · 75 the cluster is away · 78 no cluster is known, or no right to it.
    """
    from rich.console import Console

    from frazil_cli.cluster.client import Cluster
    from frazil_cli.cluster.observe import observe

    cluster = Cluster.connect(access.Access(kubeconfig, context, namespace))
    with Console(stderr=True).status("looking at the cluster"):
        findings = examine(observe(cluster, system=system, probe=probe))
    well = all(finding.state != "wrong" for finding in findings)
    if as_json:
        found = [finding.document() for finding in findings]
        document = {"context": cluster.context, "namespace": cluster.namespace, "ok": well, "findings": found}
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        draw(findings, Console(highlight=False, soft_wrap=True), where=f"{cluster.context}, {cluster.namespace}")
    return 0 if well else WRONG


def checks() -> Sequence[Callable[[Observed], Finding]]:
    """All checks, in the order in which one thing rests on another."""
    from frazil_cli.cluster.checks import (
        accelerators,
        admission,
        credentials,
        definitions,
        gangs,
        images,
        operator,
        quota,
        services,
    )

    return (
        definitions.there,
        definitions.current,
        operator.check,
        accelerators.check,
        quota.check,
        images.check,
        services.check,
        credentials.check,
        gangs.check,
        admission.check,
    )


def examine(observed: Observed) -> list[Finding]:
    """What every check says."""
    return [check(observed) for check in checks()]


def draw(findings: Sequence[Finding], console: Console, *, where: str) -> None:
    """Print it."""
    from rich.text import Text

    console.print(Text(where, style="dim"))
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        mark, style = MARKS[finding.state]
        line = Text.assemble((f"{mark} ", style), (finding.check.ljust(width + 2), "bold"), finding.message)
        console.print(line)
        for detail in finding.details:
            console.print(Text(f"  {' ' * width}  {detail}", style="dim"))
        if finding.remedy:
            console.print(Text.assemble(("  → ".ljust(width + 4), "cyan"), finding.remedy))
    wrong = sum(finding.state == "wrong" for finding in findings)
    unknown = sum(finding.state == "unknown" for finding in findings)
    words = f"{wrong} of {len(findings)} checks found something wrong" if wrong else "nothing is wrong"
    console.print(Text(words + (f"; {unknown} can't be told" if unknown else ""), style="red" if wrong else "green"))
