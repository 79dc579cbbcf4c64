"""The tables of `frazil bench quality` and `frazil bench modes`, and how the rows of both are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

KEY = ("mode", "setting", "conditioning")
DRIFT = (
    *("psnr_db", "psnr_db_worst_tenth", "psnr_db_least", "ssim", "ssim_worst_tenth", "latent_relative_error"),
    *("latent_relative_error_worst_tenth", "lpips", "prompt_accuracy", "pictures", "budget_kept", "all_whole_because"),
    "not_computed",
)


def joined(speeds: Sequence[Mapping[str, Any]], drifts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Speed and drift of each setting in one object."""
    by_key = {tuple(row[name] for name in KEY): row for row in drifts}
    return [
        {**speed, **{name: by_key.get(tuple(speed[key] for key in KEY), {}).get(name) for name in DRIFT}}
        for speed in speeds
    ]


def speed_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """`frazil bench modes`."""
    table = _table(
        title,
        ("over one", "over exact", "bound", "of bound", "PSNR", "worst tenth", "SSIM", "read right"),
    )
    for row in rows:
        table.add_row(
            *_names(row),
            f"{row['speedup_over_one']:.2f}x",
            f"{row['speedup_over_exact']:.3f}x",
            f"{row['bound_over_exact']:.3f}x",
            f"{row['of_bound']:.3f}",
            *_distance(row),
        )
    return table


def drift_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """`frazil bench quality`."""
    table = _table(
        title, ("bound over exact", "PSNR", "worst tenth", "SSIM", "read right", "latent error", "in budget")
    )
    for row in rows:
        kept = row["budget_kept"]
        table.add_row(
            *_names(row),
            f"{row['bound_over_exact']:.2f}x",
            *_distance(row),
            f"{row['latent_relative_error']:.2e}",
            "–" if kept is None else f"{kept:.0%}",
        )
    return table


def keeping_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """`frazil bench budget`."""
    table = Table(title=title, title_justify="left")
    for name in ("model", "sampler", "steps"):
        table.add_column(name)
    for name in ("budget", "kept", "PSNR", "95 % above", "error/allowed", "bound over exact"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["model"],
            row["scheduler"].removesuffix("Scheduler"),
            str(row["steps"]),
            f"{row['budget_db']:g} dB",
            f"{row['kept']:.0%}",
            f"{row['psnr_db']:.1f} dB",
            f"{row['psnr_db_promised']:.1f} dB",
            f"{row['error_over_allowed']:.2f}",
            f"{row['bound_over_exact']:.2f}x",
        )
    return table


def _table(title: str, figures: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("mode")
    table.add_column("setting")
    for name in figures:
        table.add_column(name, justify="right")
    return table


def _names(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["mode"], row["setting"]


def _distance(row: Mapping[str, Any]) -> list[str]:
    """PSNR, its worst tenth, SSIM, share read right; dashes where it wasn't measured."""
    figures = (
        (row.get("psnr_db"), "{:.1f} dB"),
        (row.get("psnr_db_worst_tenth"), "{:.1f} dB"),
        (row.get("ssim"), "{:.4f}"),
        (row.get("prompt_accuracy"), "{:.1%}"),
    )
    return ["–" if value is None else form.format(value) for value, form in figures]
