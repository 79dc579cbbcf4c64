"""A schedule as a picture: an SVG Gantt chart, and a Chrome trace to zoom into (ui.perfetto.dev opens it)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, log10
from typing import Any, Final
from xml.etree import ElementTree

from frazil_jobs.training.planning.actions import Action, Kind
from frazil_jobs.training.planning.schedules import ScheduleOrder
from frazil_jobs.training.planning.simulator import Span, Timeline

_COLOURS: Final = {Kind.F: "#5b8fd6", Kind.B: "#f0a04b", Kind.I: "#f4c77b", Kind.W: "#7fb77e"}
_WORDS: Final = {Kind.F: "forward", Kind.B: "backward", Kind.I: "backward, dX only", Kind.W: "backward, dW only"}
_FROZEN: Final = "frozen share (dW not computed)"
_WIDTH, _MARGIN, _LABEL = 1200, 16, 64
_ROW, _GAP, _TITLE, _AXIS, _LEGEND = 30, 6, 34, 26, 34
_TICKS: Final = 8


@dataclass(frozen=True)
class Panel:
    """One timeline to draw."""

    title: str
    order: ScheduleOrder
    timeline: Timeline
    ratios: Mapping[Action, float] = field(default_factory=dict)


def gantt(panels: Sequence[Panel]) -> str:
    """The panels below each other on one time axis, as the text of an SVG file: a row a rank, a bar an action with the
    number of its microbatch, the frozen share of a bar hatched from below. Later stages of a rank are paler."""
    longest = max(panel.timeline.makespan for panel in panels)
    scale = (_WIDTH - _LABEL - 2 * _MARGIN) / longest if longest else 1.0
    heights = [_TITLE + len(panel.order.order) * (_ROW + _GAP) + _AXIS for panel in panels]
    height = sum(heights) + _LEGEND + 2 * _MARGIN
    attributes = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": f"0 0 {_WIDTH} {height}",
        "width": str(_WIDTH),
        "height": str(height),
        "role": "img",
        "font-family": "system-ui, sans-serif",
        "font-size": "12",
    }
    root = ElementTree.Element("svg", attributes)
    _text(root, "title", ", ".join(panel.title for panel in panels))
    root.append(_hatching())
    _rect(root, 0, 0, _WIDTH, height, "#ffffff")
    top = float(_MARGIN)
    for panel, panel_height in zip(panels, heights, strict=True):
        _draw_panel(root, panel, top, scale, longest)
        top += panel_height
    _draw_legend(root, top + 8, panels)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def chrome_trace(panels: Sequence[Panel]) -> str:
    """The panels as processes of a Chrome trace (JSON), a thread a rank; times in microseconds."""
    events = [event for at, panel in enumerate(panels) for event in _events(at, panel)]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, indent=1) + "\n"


def _events(process: int, panel: Panel) -> Iterator[dict[str, Any]]:
    yield {"name": "process_name", "ph": "M", "pid": process, "args": {"name": panel.title}}
    critical = set(panel.timeline.critical_path)
    for rank, actions in enumerate(panel.order.order):
        yield {"name": "thread_name", "ph": "M", "pid": process, "tid": rank, "args": {"name": f"rank {rank}"}}
        for action in actions:
            span = panel.timeline.spans[action]
            yield {
                "name": str(action),
                "cat": _WORDS[action.kind],
                "ph": "X",
                "ts": span.start * 1e6,
                "dur": (span.end - span.start) * 1e6,
                "pid": process,
                "tid": rank,
                "args": {
                    "stage": action.stage,
                    "microbatch": action.microbatch,
                    "freezeRatio": panel.ratios.get(action, 0.0),
                    "critical": action in critical,
                },
            }


def _draw_panel(root: ElementTree.Element, panel: Panel, top: float, scale: float, longest: float) -> None:
    left = _MARGIN + _LABEL
    said = f"{_milliseconds(panel.timeline.makespan)} a step, {panel.timeline.bubble_share:.0%} of it waiting"
    heading = _text(root, "text", panel.title, x=_MARGIN, y=top + 18, **{"font-size": 14, "font-weight": 600})
    _text(heading, "tspan", f"   {said}", fill="#5c6670", **{"font-weight": 400})
    top += _TITLE
    for rank, actions in enumerate(panel.order.order):
        y = top + rank * (_ROW + _GAP)
        _text(root, "text", f"rank {rank}", x=_MARGIN, y=y + _ROW / 2 + 4, fill="#333333")
        _rect(root, left, y, panel.timeline.makespan * scale, _ROW, "#eef1f4")
        held = panel.order.placement.stages_of(rank)
        for action in actions:
            paler = 1.0 if held.index(action.stage) == 0 else 0.62
            _draw_action(root, action, panel.timeline.spans[action], panel.ratios.get(action, 0.0), y, scale, paler)
    _draw_axis(root, top + len(panel.order.order) * (_ROW + _GAP), scale, longest)


def _draw_action(
    root: ElementTree.Element, action: Action, span: Span, ratio: float, y: float, scale: float, opacity: float
) -> None:
    x, width = _MARGIN + _LABEL + span.start * scale, (span.end - span.start) * scale
    group = ElementTree.SubElement(root, "g")
    frozen = f", {ratio:.0%} frozen" if ratio else ""
    _text(group, "title", f"{action}: {_WORDS[action.kind]}, {_milliseconds(span.end - span.start)}{frozen}")
    _rect(group, x, y, width, _ROW, _COLOURS[action.kind], stroke="#ffffff", **{"fill-opacity": opacity})
    if ratio:
        _rect(group, x, y + _ROW * (1 - ratio), width, _ROW * ratio, "url(#frozen)")
    label = str(action.microbatch)
    if width >= 6 + 6 * len(label):
        middle = {"text-anchor": "middle", "font-size": 11}
        _text(group, "text", label, x=x + width / 2, y=y + _ROW / 2 + 4, fill="#1b2530", **middle)


def _draw_axis(root: ElementTree.Element, y: float, scale: float, longest: float) -> None:
    step = _round_step(longest / _TICKS)
    for at in range(int(longest / step) + 1 if step else 0):
        x = _MARGIN + _LABEL + at * step * scale
        _rect(root, x, y - 2, 1, 5, "#8a949e")
        _text(root, "text", _milliseconds(at * step), x=x + 3, y=y + 11, fill="#5c6670", **{"font-size": 10})


def _draw_legend(root: ElementTree.Element, y: float, panels: Sequence[Panel]) -> None:
    kinds = {action.kind for panel in panels for action in panel.order.actions}
    entries = [(_COLOURS[kind], _WORDS[kind]) for kind in Kind if kind in kinds]
    if any(ratio for panel in panels for ratio in panel.ratios.values()):
        entries.append(("url(#frozen)", _FROZEN))
    entries.append(("#eef1f4", "waiting"))
    x = float(_MARGIN + _LABEL)
    for colour, words in entries:
        _rect(root, x, y, 22, 14, colour, stroke="#c5ccd3")
        _text(root, "text", words, x=x + 28, y=y + 11, fill="#333333")
        x += 28 + 7 * len(words) + 24


def _hatching() -> ElementTree.Element:
    """Ice: pale blue with diagonal lines."""
    definitions = ElementTree.Element("defs")
    pattern = _add(
        definitions,
        "pattern",
        id="frozen",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )
    _add(pattern, "rect", width=6, height=6, fill="#e3f4ff")
    _add(pattern, "rect", width=1.6, height=6, fill="#4aa8d8")
    return definitions


def _rect(parent: ElementTree.Element, x: float, y: float, width: float, height: float, fill: str, **more: Any) -> None:
    numbers = {"x": x, "y": y, "width": width, "height": height}
    _add(parent, "rect", fill=fill, **{name: f"{value:.2f}" for name, value in numbers.items()}, **more)


def _text(parent: ElementTree.Element, tag: str, text: str, **attributes: Any) -> ElementTree.Element:
    element = _add(parent, tag, **attributes)
    element.text = text
    return element


def _add(parent: ElementTree.Element, tag: str, **attributes: Any) -> ElementTree.Element:
    return ElementTree.SubElement(parent, tag, {name: str(value) for name, value in attributes.items()})


def _round_step(roughly: float) -> float:
    """1, 2 or 5 times a power of ten, at least `roughly`."""
    if roughly <= 0:
        return 0.0
    power = 10.0 ** floor(log10(roughly))
    return float(next(power * times for times in (1, 2, 5, 10) if power * times >= roughly * (1 - 1e-9)))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.4g} ms" if seconds < 10 else f"{seconds:.4g} s"
