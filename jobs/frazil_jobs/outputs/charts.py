"""Line charts as SVG: numbers in, coordinates out. The template draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

WIDTH: Final = 640.0
HEIGHT: Final = 220.0
LEFT: Final = 58.0
RIGHT: Final = 12.0
TOP: Final = 12.0
BOTTOM: Final = 28.0
COLOURS: Final = ("#1f6feb", "#d9541e", "#2b8a3e", "#9c36b5", "#b8860b", "#0b7285", "#c2255c", "#5f6b7a")
_SMOOTHING: Final = 0.1
"""Weight of a new point in a smoothed curve."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One line: x ascending. `smooth` draws a running mean over the faint line, `marks` a dot at each point."""

    name: str
    points: Points
    smooth: bool = False
    marks: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve in the coordinates of its picture."""

    name: str
    colour: str
    path: str
    """Of an SVG path."""
    faint: str = ""
    """The path under a smoothed one."""
    marks: tuple[tuple[str, str, str], ...] = ()
    """x, y and what a dot says when it's pointed at."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """All that the template draws."""

    title: str
    curves: tuple[Line, ...]
    ticks_x: tuple[tuple[str, str], ...] = ()
    """Place and text."""
    ticks_y: tuple[tuple[str, str], ...] = ()
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM
    described: str = field(default="")
    """For readers who can't see it."""


def chart(title: str, curves: Sequence[Curve], *, least: float | None = None, most: float | None = None) -> Chart:
    """Scale curves into one picture; `least` and `most` widen the vertical axis. Values that are no numbers are left out."""
    kept = [(curve, [(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)]) for curve in curves]
    kept = [(curve, points) for curve, points in kept if points]
    if not kept:
        return Chart(title=title, curves=())
    xs = [x for _, points in kept for x, _ in points]
    ys = [y for _, points in kept for _, y in points]
    low = min([*ys, *([least] if least is not None else [])])
    high = max([*ys, *([most] if most is not None else [])])
    steps_y = ticks(low, high)
    low, high = min(low, steps_y[0]), max(high, steps_y[-1])
    first, last = min(xs), max(xs)
    steps_x = [tick for tick in ticks(first, last) if first <= tick <= last and tick == int(tick)] or [first]

    def across(x: float) -> float:
        return LEFT + (x - first) / ((last - first) or 1.0) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)

    def path(points: Points) -> str:
        return "M" + "L".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)

    lines = []
    for number, (curve, points) in enumerate(kept):
        marks = tuple((f"{across(x):.1f}", f"{up(y):.1f}", f"step {x:g}: {y:.4g}") for x, y in points)
        lines.append(
            Line(
                name=curve.name,
                colour=COLOURS[number % len(COLOURS)],
                path=path(smoothed(points) if curve.smooth else points),
                faint=path(points) if curve.smooth else "",
                marks=marks if curve.marks else (),
            )
        )
    ends = "; ".join(f"{curve.name or title}: {points[0][1]:.4g} to {points[-1][1]:.4g}" for curve, points in kept)
    return Chart(
        title=title,
        curves=tuple(lines),
        ticks_x=tuple((f"{across(tick):.1f}", _text(tick)) for tick in steps_x),
        ticks_y=tuple((f"{up(tick):.1f}", _text(tick)) for tick in steps_y),
        described=f"{title} over steps {first:g} to {last:g}. {ends}.",
    )


def smoothed(points: Points) -> list[tuple[float, float]]:
    """A running mean; at the start, the mean of all values so far."""
    mean = 0.0
    found = []
    for number, (x, y) in enumerate(points, 1):
        mean += max(_SMOOTHING, 1 / number) * (y - mean)
        found.append((x, mean))
    return found


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that reach from below `low` to above `high`."""
    span = high - low or abs(high) or 1.0
    raw = span / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(start, max(stop, start + 1) + 1)]


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"
