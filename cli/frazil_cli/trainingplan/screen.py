"""A training plan as a person reads it: the object of `planning`, laid out on a screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from frazil_cli.plandrawing import draw_facts

_STAGES_SHOWN = 16
_RELATIVE = (
    "speed-up and grads/s (gradients computed a second) are relative to 1F1B with nothing frozen; "
    "held: most microbatches whose activations a rank keeps"
)


def draw(document: Mapping[str, Any], console: Console) -> None:
    """Print a plan."""
    draw_facts(document, document["task"], _rows(document), console)
    if document["comparison"]:
        console.print()
        _draw_comparison(document["comparison"], console)


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    model, batch = document["model"], document["batch"]
    yield "model", Text(model["uri"] + (f" · {model['blocks']} blocks" if model["blocks"] else ""))
    yield "batch", Text(_batch(batch))
    if ranks := document["ranks"]:
        yield "ranks", Text(f"{ranks['pipeline']} of a pipeline × {ranks['data']} pipelines")
        yield "", _grid(ranks["grid"][: ranks["pipeline"]], document["schedule"])
    if schedule := document["schedule"]:
        yield "schedule", Text(_schedule(schedule))
    if timings := document["timings"]:
        yield "times", Text(_times(timings))
    if step := document["step"]:
        yield "step", Text(_step(step))
    if freezing := document["freezing"]:
        yield "freezing", Text(_freezing(freezing, document["step"]))
    cluster = document["cluster"]
    yield "in a cluster", Text("\n  ".join([_pods(cluster), *cluster["objects"]]))


def _batch(batch: Mapping[str, Any]) -> str:
    several = f", {batch['accumulation']} times a step" if batch["accumulation"] > 1 else ""
    return (
        f"{batch['size']} samples a step, in {batch['microbatches']} microbatches of {batch['microbatchSize']}{several}"
    )


def _grid(grid: Sequence[Mapping[str, Any]], schedule: Mapping[str, Any]) -> RenderableType:
    """A row a rank of the first pipeline."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    known = grid[0]["blocks"] is not None
    for name in ("rank", "stages", *(["blocks"] if known else []), "microbatches held"):
        table.add_column(name)
    for place, held in list(zip(grid, schedule["microbatchesHeld"], strict=True))[:_STAGES_SHOWN]:
        blocks = [", ".join(f"{first}–{last}" for first, last in place["blocks"])] if known else []
        table.add_row(str(place["rank"]), ", ".join(map(str, place["stages"])), *blocks, f"{held:g}")
    if len(grid) > _STAGES_SHOWN:
        table.add_row("…")
    return table


def _schedule(schedule: Mapping[str, Any]) -> str:
    blocks = f": {', '.join(map(str, schedule['blocks']))} blocks" if schedule["blocks"] else ""
    return f"{schedule['name']}, {schedule['stages']} stages cut {schedule['partition'].lower()}{blocks}"


def _times(timings: Mapping[str, Any]) -> str:
    hop = timings["hopSeconds"]
    return str(timings["source"]) + (f"; {hop * 1000:.2g} ms from rank to rank" if hop else "")


def _step(step: Mapping[str, Any]) -> str:
    waiting = f"{step['unfrozenBubbleShare']:.0%} of it waiting"
    if step["seconds"] is None:
        lines = [f"nothing frozen: {waiting}"]
    else:
        lines = [f"{_time(step['unfrozenSeconds'])} with nothing frozen, {waiting}"]
    if step["speedUp"] > 1:
        planned = f"{_time(step['seconds'])}, " if step["seconds"] is not None else ""
        lines.append(f"{planned}{step['speedUp']:.2f}× as fast by the plan, {step['bubbleShare']:.0%} of it waiting")
    lines.append(f"at most {step['speedUpBound']:.2f}× with everything frozen")
    noise = step["noise"]
    lines.append(
        f"with {noise['sigma']:.0%} noise of each action, {noise['p5']:.2f} to {noise['p95']:.2f} of that time"
    )
    if step["totalSeconds"] is not None:
        lines.append(f"{_time(step['totalSeconds'])} for all steps")
    return "\n".join(lines)


def _freezing(freezing: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    if freezing["method"] == "None":
        return "none"
    if freezing["meanFreezeRatio"] is None:
        return f"{freezing['method']}: what its metric calls stable, so the step can't be foretold"
    stages = ", ".join(f"{mean:.2f}" for mean in freezing["stageMeans"][:_STAGES_SHOWN])
    limits = f"at most {freezing['maxFreezeRatio']:g} of a stage, slack {freezing['slackPercent']:g} %"
    rate = freezing["gradientRate"]
    worth = "worth it" if rate >= 1 else "it pays only where fewer gradients do"
    return (
        f"{freezing['method']}, {freezing['selection']}; {limits}\n"
        f"mean ratio {freezing['meanFreezeRatio']:.2f}; by stage {stages}\n"
        f"{rate:.2f}× the gradients a second: {worth}"
    )


def _pods(cluster: Mapping[str, Any]) -> str:
    pods = "1 pod" if cluster["pods"] == 1 else f"{cluster['pods']} pods"
    return f"{pods} of {cluster['gpusPerPod']} GPUs"


def _draw_comparison(comparison: Mapping[str, Any], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("schedule", "method"):
        table.add_column(name, no_wrap=True)
    for name in ("step", "speed-up", "frozen", "grads/s", "held"):
        table.add_column(name, justify="right")
    before = None
    for row in comparison["rows"]:
        if before is not None and row["schedule"] != before:
            table.add_section()
        table.add_row(
            row["schedule"] if row["schedule"] != before else "",
            row["method"],
            _time(row["seconds"]) if row["seconds"] is not None else "",
            f"{row['speedUp']:.2f}×",
            f"{row['meanFreezeRatio']:.2f}",
            f"{row['gradientRate']:.2f}",
            f"{row['microbatchesHeld']:g}",
        )
        before = row["schedule"]
    console.print(table)
    console.print(f"\n{_RELATIVE}", style="dim", soft_wrap=True)
    for method, words in comparison["methods"].items():
        console.print(Text.assemble((f"{method}: ", "bold"), words), style="dim", soft_wrap=True)
    for target in comparison["reach"]:
        least = ", ".join(
            f"{one['schedule']} {one['meanFreezeRatio']:.2f}" if one["meanFreezeRatio"] is not None
            else f"{one['schedule']} can't" for one in target["schedules"]
        )  # fmt: skip
        said = f" ({_time(target['seconds'])}, {target['meanFreezeRatio']:.2f} frozen)" if target["seconds"] else ""
        console.print(
            f"\nleast mean freeze ratio for a step as short as {target['as']}{said}:\n  {least}", soft_wrap=True
        )


def _time(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.1f} µs"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.0f} min"
