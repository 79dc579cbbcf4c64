"""The frontier as a picture: speed over the exact split against distance to exact, one line a mode, as SVG.

Drawn by hand as text, since it is two axes, some dots and their names, and a drawing library would weigh more than Frazil.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

WIDTH: Final = 860
HEIGHT: Final = 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 230, 50, 60
COLOURS: Final[Mapping[str, str]] = {
    "Exact": "#333333",
    "Hybrid": "#c2410c",
    "Guided": "#1d4ed8",
    "Guided, one rank": "#7c8fb8",
    "Guided, 4 ranks": "#0f766e",
}
"""Told apart in grey, too: dark, middle, dark blue, light."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One setting."""

    group: str
    label: str
    speed: float
    """Over the exact split."""
    median: float
    """Decibels to exact."""
    worst: float
    """What nine pictures in ten reach."""


def group_of(row: Mapping[str, Any]) -> str:
    """The mode, and on how many ranks where it isn't two."""
    mode, ranks = str(row["mode"]), row["ranks"]
    return mode if ranks == 2 else f"{mode}, {'one rank' if ranks == 1 else f'{ranks} ranks'}"


def dots_of(rows: Sequence[Mapping[str, Any]], *, speed: str) -> list[Dot]:
    """The settings that approximate, by `speed` ("bound_over_exact" or "speedup_over_exact")."""
    return [
        Dot(
            group=group_of(row),
            label=row["setting"],
            speed=row[speed],
            median=row["psnr_db"],
            worst=row["psnr_db_worst_tenth"],
        )
        for row in rows
        if row["mode"] != "Exact" and row.get("psnr_db") is not None and row.get(speed) is not None
    ]


def frontier(dots: Sequence[Dot], *, title: str, speed_title: str) -> str:
    """The drawing: medians as dots, with a line down to the worst tenth."""
    speeds = [dot.speed for dot in dots] + [1.0]
    levels = [level for dot in dots for level in (dot.median, dot.worst)]
    x = _axis(min(speeds), max(speeds), _LEFT, WIDTH - _RIGHT)
    y = _axis(min(levels, default=0.0), max(levels, default=1.0), HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="26" font-size="16" font-weight="600">{escape(title)}</text>',
        *_grid(x, y),
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}" y="{HEIGHT - 16}" text-anchor="middle">{escape(speed_title)}</text>',
        f'<text transform="translate(20 {(HEIGHT - _BOTTOM + _TOP) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "PSNR to exact, dB (dot: median, end of the line: nine in ten are above)</text>",
        *(_dot(dot, x, y) for dot in dots),
        *_legend(sorted({dot.group for dot in dots})),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        step = 10 ** math.floor(math.log10((self.high - self.low) / 4))
        step = next(step * factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 8)
        first = math.ceil(self.low / step)
        return [round(step * number, 10) for number in range(first, math.floor(self.high / step) + 1)]


def _axis(low: float, high: float, start: float, end: float) -> _Axis:
    margin = 0.06 * (high - low) or 1.0
    return _Axis(low - margin, high + margin, start, end)


def _grid(x: _Axis, y: _Axis) -> list[str]:
    lines = []
    for value in x.ticks():
        at = x.at(value)
        lines.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" stroke="#e5e7eb"/>')
        lines.append(f'<text x="{at:.1f}" y="{HEIGHT - _BOTTOM + 20}" text-anchor="middle">{value:g}×</text>')
    for value in y.ticks():
        at = y.at(value)
        lines.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#e5e7eb"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    return lines


def _dot(dot: Dot, x: _Axis, y: _Axis) -> str:
    colour, across = COLOURS.get(dot.group, "#555555"), x.at(dot.speed)
    return (
        f"<g><title>{escape(dot.group)} {escape(dot.label)}: {dot.speed:.2f}×, {dot.median:.1f} dB, nine in ten above "
        f"{dot.worst:.1f} dB</title>"
        f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{y.at(dot.median):.1f}" y2="{y.at(dot.worst):.1f}" '
        f'stroke="{colour}" stroke-width="1.5" opacity="0.6"/>'
        f'<circle cx="{across:.1f}" cy="{y.at(dot.median):.1f}" r="5" fill="{colour}"/></g>'
    )


def _legend(groups: Sequence[str]) -> list[str]:
    lines = []
    for number, group in enumerate(groups):
        down = _TOP + 12 + 24 * number
        colour = COLOURS.get(group, "#555555")
        lines.append(f'<circle cx="{WIDTH - _RIGHT + 24}" cy="{down}" r="5" fill="{colour}"/>')
        lines.append(f'<text x="{WIDTH - _RIGHT + 36}" y="{down + 4}">{escape(group)}</text>')
    return lines
