"""The tables of `frazil bench quality`, `budget` and `modes`, and how the rows of speed and distance are joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from frazil_cli.bench_modes.drawing import group_of

KEY = ("mode", "setting", "conditioning")
DRIFT = (
    *("psnr_db", "psnr_db_worst_tenth", "psnr_db_least", "ssim", "ssim_worst_tenth", "latent_relative_error"),
    *("latent_relative_error_worst_tenth", "lpips", "clip_score", "prompt_accuracy", "pictures", "budget_kept"),
    *("all_whole_because", "not_computed"),
)
NOTHING = "–"
Row = Mapping[str, Any]


def joined(speeds: Sequence[Row], drifts: Sequence[Row]) -> list[dict[str, Any]]:
    """Speed and drift of each setting in one object."""
    by_key = {tuple(row[name] for name in KEY): row for row in drifts}
    return [
        {**speed, **{name: by_key.get(tuple(speed[key] for key in KEY), {}).get(name) for name in DRIFT}}
        for speed in speeds
    ]


@dataclass(frozen=True)
class Column:
    """One column of a report: its head and what it says of a row."""

    head: str
    cell: Callable[[Row], str]
    kind: str = "figure"
    """`figure`, `words`, or `code`: what can be pasted."""


@dataclass(frozen=True)
class Report:
    """One table, for a screen or for a page."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]

    def table(self) -> Table:
        """For a screen."""
        table = Table(title=self.title, title_justify="left")
        for column in self.columns:
            table.add_column(column.head, justify="right" if column.kind == "figure" else "left")
        for row in self.rows:
            table.add_row(*(column.cell(row) for column in self.columns))
        return table

    def markdown(self) -> str:
        """For a page, as docs/modes.md has it."""
        lines = [
            [column.head for column in self.columns],
            ["---:" if column.kind == "figure" else "---" for column in self.columns],
            *([_pasted(column, column.cell(row)) for column in self.columns] for row in self.rows),
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _pasted(column: Column, text: str) -> str:
    return f"`{text}`" if column.kind == "code" and text != NOTHING else text


def _figure(name: str, form: str) -> Callable[[Row], str]:
    """The row's figure of this name; a dash where it wasn't measured."""
    return lambda row: NOTHING if row.get(name) is None else form.format(row[name])


def _distance(name: str, form: str) -> Callable[[Row], str]:
    """The same; a dash for Exact, which is what distances are to."""
    figure = _figure(name, form)
    return lambda row: NOTHING if row["mode"] == "Exact" else figure(row)


def _setting(row: Row) -> str:
    return NOTHING if row["mode"] == "Exact" and row["setting"] == "defaults" else str(row["setting"])


NAMES = (Column("mode", group_of, "words"), Column("setting", _setting, "code"))
BOUND = Column("bound over exact", _figure("bound_over_exact", "{:.2f}x"))
PSNR = (
    Column("PSNR, median", _distance("psnr_db", "{:.1f} dB")),
    Column("nine in ten above", _distance("psnr_db_worst_tenth", "{:.1f} dB")),
)


def drift_report(rows: Sequence[Row], title: str) -> Report:
    """`frazil bench quality`."""
    learned = (
        ("lpips", Column("LPIPS", _distance("lpips", "{:.4f}"))),
        ("clip_score", Column("CLIP score", _figure("clip_score", "{:.2f}"))),
    )
    columns = (
        *NAMES,
        BOUND,
        *PSNR,
        Column("SSIM", _distance("ssim", "{:.4f}")),
        Column("latent error", _distance("latent_relative_error", "{:.4f}")),
        *(column for name, column in learned if any(row.get(name) is not None for row in rows)),
        Column("read right", _figure("prompt_accuracy", "{:.0%}")),
        Column("in budget", _figure("budget_kept", "{:.0%}")),
    )
    return Report(title, columns, rows)


def speed_report(rows: Sequence[Row], title: str) -> Report:
    """`frazil bench modes`. The distance only where it was measured."""
    columns = (
        *NAMES,
        Column("over one rank", _figure("speedup_over_one", "{:.2f}x")),
        Column("over exact", _figure("speedup_over_exact", "{:.2f}x")),
        Column("bound", _figure("bound_over_exact", "{:.2f}x")),
        Column("of bound", lambda row: NOTHING if row["mode"] == "Exact" else f"{row['of_bound']:.2f}"),
        Column("its step over a whole one", _own_step),
        Column("counted", lambda row: _counted(row) or NOTHING),
        *(PSNR if any(row.get("psnr_db") is not None for row in rows) else ()),
    )
    return Report(title, columns, rows)


def _own_step(row: Row) -> str:
    """Of each kind of step that isn't whole: its median over the exact split's step, and how many were timed."""
    names = {"reused": "reusing", "staged": "staged"}
    found = [
        f"{row['step_over_exact'][kind]:.2f} ({name}, {row['steps_measured'][kind]} steps)"
        for kind, name in names.items()
        if row["steps_measured"].get(kind)
    ]
    return ", ".join(found) or NOTHING


def _counted(row: Row) -> str:
    kinds = [kind for kind in ("reused", "staged") if row["steps_measured"].get(kind)]
    return ", ".join(f"{row['counted_step'][kind]:.2f}" for kind in kinds)


def keeping_report(rows: Sequence[Row], title: str) -> Report:
    """`frazil bench budget`."""
    columns = (
        Column("model", lambda row: str(row["model"]), "words"),
        Column("sampler", lambda row: str(row["scheduler"]).removesuffix("Scheduler"), "words"),
        Column("steps", lambda row: str(row["steps"])),
        Column("setting", lambda row: str(row["setting"]), "code"),
        Column("kept", _figure("kept", "{:.0%}")),
        Column("PSNR, median", _figure("psnr_db", "{:.1f} dB")),
        Column("95 % above", _figure("psnr_db_promised", "{:.1f} dB")),
        Column("error/allowed", _figure("error_over_allowed", "{:.2f}")),
        BOUND,
    )
    return Report(title, columns, rows)
