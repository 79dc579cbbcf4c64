"""Whether mode Guided keeps its budget, on pictures that none of its constants was chosen on: `frazil bench budget`.

One row a model, sampler, number of steps and budget. Every picture is a call of its own: in a batch the one that is hardest
to forecast holds the others back, and these end further inside of their budgets than they would alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final

from frazil_cli.bench_modes import bounds
from frazil_cli.bench_modes.drift import bound_of, make
from frazil_cli.bench_modes.settings import parse
from frazil_cli.bench_modes.subject import Subject

PROMISED: Final = 0.95
"""The share of pictures that is to keep its budget."""


def keeping(
    subject: Subject,
    scheduler: str | None,
    switchings: Sequence[str],
    *,
    count: int,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row for each of `switchings` (`budget=45,refreshEvery=4`). `scheduler`: a class, or None for the model's own.

    Raises BadConfiguration for a scheduler that doesn't fit.
    """
    pipe = subject.pipeline()
    if scheduler is not None:
        _replace(pipe, subject, scheduler)
    exact = make(pipe, subject, parse("Exact"), count=count, batch=1, seed=seed, shares=None)
    rows = []
    for switching in switchings:
        setting = parse(f"Guided:{switching}")
        say(f"{subject.model}, {subject.steps} steps, {setting.text}")
        shares = bounds.shares_of(pipe, subject, setting)
        made = make(pipe, subject, setting, count=count, batch=1, seed=seed, shares=shares)
        asked = float(setting.parallelism.switching.budget)
        rows.append(
            {
                "model": subject.model,
                "scheduler": type(pipe.scheduler).__name__,
                "steps": subject.steps,
                "setting": setting.detail,
                "budget_db": asked,
                **share_kept(asked, made.pictures, exact.pictures),
                "ranks": setting.ranks,
                "bound_over_exact": bound_of(subject, setting, made),
                "pictures": count,
                "all_whole_because": made.reason or None,
            }
        )
    return rows


def share_kept(asked: float, made: Sequence[Any], exact: Sequence[Any]) -> dict[str, float]:
    """Of pictures in [0, 1]: the share `asked` decibels from their exact ones or nearer, and what `PROMISED` of them get."""
    from frazil_cli.bench_modes.drift import MOST_DECIBELS
    from frazil_jobs.generation.quality import psnr

    decibels = [min(psnr(one, other), MOST_DECIBELS) for one, other in zip(made, exact, strict=True)]
    promised = sorted(decibels)[math.floor(len(decibels) * (1 - PROMISED))]
    return {
        "kept": sum(value >= asked for value in decibels) / len(decibels),
        "psnr_db": statistics.median(decibels),
        "psnr_db_promised": promised,
        "error_over_allowed": 10 ** ((asked - promised) / 20),
    }


def _replace(pipe: Any, subject: Subject, name: str) -> None:
    from pathlib import Path

    from frazil_jobs.generation.load import Folder, replace_scheduler, scheduler_class

    kind = scheduler_class(Folder.read(Path(subject.model)), name)
    assert kind is not None
    replace_scheduler(pipe, kind)
