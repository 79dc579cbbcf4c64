"""A plan as a person reads it: the object of `planning`, laid out on a screen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from frazil_cli.display import count

UNKNOWN = "not known: it takes the model's own files, and no --quick"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def draw(document: Mapping[str, Any], console: Console) -> None:
    """Print a plan."""
    draw_facts(document, document["mode"], _rows(document), console)


def draw_facts(
    document: Mapping[str, Any], what: str, rows: Iterable[tuple[str, RenderableType]], console: Console
) -> None:
    """Print a job's name, kind and `what` it is, and below it a column of labels with what is known of each."""
    console.print(Text.assemble((document["name"], "bold"), f"  {document['kind']}, {what}"))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for label, value in rows:
        table.add_row(label, value)
    console.print(table)


def _rows(document: Mapping[str, Any]) -> Sequence[tuple[str, RenderableType]]:
    here = document["here"]
    rows: list[tuple[str, RenderableType]] = []
    if outputs := document["outputs"]:
        rows += [("outputs", Text(_outputs(outputs))), ("keys", Text(_keys(outputs)))]
    rows.append(("model", Text(_model(document["model"]))))
    rows.append(("guidance", Text(_guidance(document["guidance"]))))
    if here:
        rows += [("here", Text(_here(here))), ("", _grid(here["grid"]))]
        rows += [("", Text(note, style="yellow")) for note in here["notes"]]
    rows.append(("in a cluster", Text(_cluster(document["cluster"]))))
    speed = document["speedUp"]
    modes = document["modes"]
    rows.append(("speed-up", Text(_speed(speed, modes, known=document["guidance"] is not None))))
    if modes:
        rows.append(("modes", _modes(modes)))
    if message := document["message"]:
        rows.append(("messages", Text(_message(message))))
    rows.append(("changes", Text(document["changes"])))
    return rows


def _outputs(outputs: Mapping[str, Any]) -> str:
    each = f" × {outputs['perPrompt']}" if outputs["perPrompt"] > 1 else ""
    shards = count(outputs["shards"], "shard")
    made = f"{outputs['count']:,} {outputs['format']} of {count(outputs['prompts'], 'prompt')}{each}"
    return f"{made}, in {shards} of {count(outputs['perShard'], 'prompt')}"


def _keys(outputs: Mapping[str, Any]) -> str:
    last = f" … {outputs['lastKey']}" if outputs["count"] > 1 else ""
    return f"{outputs['prefix']}/{outputs['firstKey']}{last}"


def _model(model: Mapping[str, Any]) -> str:
    parts = [model["uri"], model["pipeline"], size_text(model["bytes"]) if model["bytes"] else None, model["dtype"]]
    return " · ".join(part for part in parts if part)


def _guidance(guidance: Mapping[str, Any] | None) -> str:
    if guidance is None:
        return UNKNOWN
    if guidance["style"] in ("none", "unsupported"):
        return f"{guidance['style']}: {guidance['reason']}"
    return f"{guidance['branches']} branches a step, {guidance['style']}: {guidance['reason']}"


def _here(here: Mapping[str, Any]) -> str:
    device = {"cuda": "one GPU each", "cpu": f"{count(here['threads'], 'thread')} each, on the CPU"}[here["device"]]
    replicas = f", {here['replicas']} replicas at once" if here["replicas"] > 1 else ""
    return f"{count(here['ranks'], 'rank')} a replica, {device}{replicas}"


def _grid(grid: Sequence[Mapping[str, int]]) -> RenderableType:
    """A row a sequence part (and stage), a column a guidance branch."""
    branches = 1 + max(place["branch"] for place in grid)
    rows = sorted({(place["stage"], place["part"]) for place in grid})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    stages = len({stage for stage, _ in rows}) > 1
    parts = len({part for _, part in rows}) > 1
    if stages or parts:
        table.add_column("")
    for branch in range(branches):
        table.add_column("all branches" if branches == 1 else f"branch {branch}")
    for stage, part in rows:
        name = " ".join([f"stage {stage}"] * stages + [f"part {part}"] * parts)
        cells = [
            f"rank {place['rank']}"
            for branch in range(branches)
            for place in grid
            if (place["branch"], place["stage"], place["part"]) == (branch, stage, part)
        ]
        table.add_row(*([name] if stages or parts else []), *cells)
    return table


def _cluster(cluster: Mapping[str, Any]) -> str:
    lines = [
        f"{count(cluster['podsAtOnce'], 'pod')} of {cluster['gpusAtOnce'] // cluster['podsAtOnce']} GPUs at once"
        + (f", {count(cluster['indices'], 'index', 'indices')} in all" if cluster["indices"] else ""),
        *(f"  {name}" for name in cluster["objects"]),
    ]
    return "\n".join(lines)


def _speed(speed: Mapping[str, Any], modes: Mapping[str, Any] | None, *, known: bool) -> str:
    bound = speed["bound"]
    if bound is None:
        why = (modes and modes["notCounted"]) or "none: the job can't run as it is"
        return why if known else UNKNOWN
    if bound <= 1:
        return "none within an image: replicas make more images at once"
    most = f"at most {bound:.3g}× one device"
    if speed["measuredBound"] is None:
        return f"{most}, by operation count"
    if bound == 2:
        return f"{most}; what a device allows is {speed['measuredBound']}\n{speed['measure']}"
    return f"{most}, by operation count; of 2 in it a device allows {speed['measuredBound']}\n{speed['measure']}"


def _modes(modes: Mapping[str, Any]) -> RenderableType:
    """A line a mode; the job's own is bold."""
    if modes["notCounted"]:
        return Text(f"not counted: {modes['notCounted']}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("mode", "GPUs", "at most", "sent a step", "changes"):
        table.add_column(name, justify="right" if name in ("GPUs", "at most", "sent a step") else "left")
    for row in modes["rows"]:
        sent = size_text(row["bytesPerStep"]) if row["bytesPerStep"] else "–"
        bound = "–" if row["bound"] is None else f"{row['bound']:.2f}x"
        table.add_row(row["mode"], _gpus(row), bound, sent, row["changes"], style="bold" if row["own"] else None)
    return table


def _gpus(row: Mapping[str, Any]) -> str:
    """`2`, or with stages or sequence parts `4 (2 × 2 × 1)`."""
    degrees = row["degrees"]
    if degrees["pipeline"] == degrees["sequence"] == 1:
        return str(row["gpus"])
    return f"{row['gpus']} ({' × '.join(str(degree) for degree in degrees.values())})"


def _message(message: Mapping[str, Any]) -> str:
    if not message["bytesPerStep"]:
        return f"each step {message['what']}; its size isn't known here"
    return f"{size_text(message['bytesPerStep'])} a step: {message['what']}"


def size_text(size: float) -> str:
    """`4.0 KiB`."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("the last unit takes all")
