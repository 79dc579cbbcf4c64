"""Validation loss over time as SVG: a panel a job, a colour a method, the median of the seeds over each seed's own line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from frazil_cli.bench_convergence.rows import Run, median_curve
from frazil_jobs.outputs import charts
from frazil_jobs.outputs.charts import Chart, Curve

COLOURS: Final[Mapping[str, str]] = {
    "none": "#333333",
    "uniform": "#7c8fb8",
    "published": "#c2410c",
    "ours": "#1d4ed8",
}
_HEAD, _FOOT = 52, 26
"""Above a panel: its title and the key; below: the title of its axis."""


def curves(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> str:
    """The drawing. `rows` are those of the runs: they give the target of each job."""
    jobs = list(dict.fromkeys(run.job for run in runs))
    height = len(jobs) * (charts.HEIGHT + _HEAD + _FOOT)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {charts.WIDTH:.0f} {height:.0f}" '
        f'width="{charts.WIDTH:.0f}" height="{height:.0f}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{charts.WIDTH:.0f}" height="{height:.0f}" fill="white"/>',
    ]
    for number, job in enumerate(jobs):
        target = next(float(row["target_loss"]) for row in rows if row["job"] == job)
        parts.append(f'<g transform="translate(0 {number * (charts.HEIGHT + _HEAD + _FOOT) + _HEAD:.0f})">')
        parts += _panel([run for run in runs if run.job == job], target)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(runs: Sequence[Run], target: float) -> list[str]:
    methods = list(dict.fromkeys(run.method for run in runs))
    alone = [(run.method, Curve(run.method, median_curve([run]))) for run in runs]
    middle = [(name, Curve(name, median_curve([run for run in runs if run.method == name]))) for name in methods]
    last = max(x for _, curve in alone for x, _ in curve.points)
    goal = Curve("target", [(0.0, target), (last, target)])
    drawn = charts.chart("", [*(curve for _, curve in [*alone, *middle]), goal])
    title = f"{runs[0].job} ({runs[0].task}, {runs[0].schedule}): validation loss"
    parts = [
        f'<text x="{drawn.left:.0f}" y="-34" font-size="14" font-weight="600">{escape(title)}</text>',
        *_key(methods, drawn.left),
        *_grid(drawn),
    ]
    for (name, _), line, width, opacity in zip(
        [*alone, *middle],
        drawn.curves,
        [1.0] * len(alone) + [2.2] * len(middle),
        [0.35] * len(alone) + [1.0] * len(middle),
        strict=False,
    ):
        parts.append(
            f'<path d="{line.path}" fill="none" stroke="{COLOURS[name]}" stroke-width="{width}" opacity="{opacity}"/>'
        )
    parts.append(f'<path d="{drawn.curves[-1].path}" stroke="#777777" stroke-dasharray="4 4"/>')
    parts.append(
        f'<text x="{(drawn.left + drawn.right) / 2:.0f}" y="{drawn.height + 12:.0f}" text-anchor="middle">'
        f"seconds of training (thin: a seed, thick: their median, dashed: {target:.4g})</text>"
    )
    return parts


def _key(methods: Sequence[str], left: float) -> list[str]:
    parts = []
    for number, name in enumerate(methods):
        x = left + 110 * number
        parts.append(f'<rect x="{x:.0f}" y="-22" width="18" height="4" fill="{COLOURS[name]}"/>')
        parts.append(f'<text x="{x + 24:.0f}" y="-16">{escape(name)}</text>')
    return parts


def _grid(drawn: Chart) -> list[str]:
    parts = []
    for place, text in drawn.ticks_y:
        parts.append(f'<line x1="{drawn.left}" x2="{drawn.right}" y1="{place}" y2="{place}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{drawn.left - 6:.0f}" y="{float(place) + 4:.1f}" text-anchor="end">{text}</text>')
    for place, text in drawn.ticks_x:
        parts.append(f'<text x="{place}" y="{drawn.bottom + 16:.0f}" text-anchor="middle">{text}</text>')
    return parts
