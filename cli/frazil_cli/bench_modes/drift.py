"""How far the pictures of each setting are from exact ones, picture by picture: `frazil bench quality`.

Everything runs in this process, by the simulator that the ranks equal bit for bit. The reference is mode Exact from the
same seeds. Medians, and the value that nine pictures in ten reach (the worst tenth decides whether a mode can be trusted).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from frazil_cli.bench_modes import bounds, runs
from frazil_cli.bench_modes.settings import Setting
from frazil_cli.bench_modes.subject import Reader, Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from frazil_jobs.generation.costs.modes import Shares

    Pictures = NDArray[np.float32]

MOST_DECIBELS = 99.0
"""What stands for pictures without any difference in medians and drawings."""


@dataclass(kw_only=True)
class Made:
    """The outputs of one setting."""

    pictures: list[Any] = field(default_factory=list)
    latents: list[Any] = field(default_factory=list)
    forwards: list[float] = field(default_factory=list)
    """Of each picture: what its steps cost, in whole steps."""
    courses: list[Mapping[str, str]] = field(default_factory=list)
    reason: str = ""
    """Why it ran exactly, if it did."""


def make(
    pipe: Any, subject: Subject, setting: Setting, *, count: int, batch: int, seed: int, shares: Shares | None
) -> Made:
    """`count` pictures of a setting. Each batch is denoised once; its latents are decoded by the pipeline's own call."""
    import numpy as np
    import torch

    made = Made()
    with torch.no_grad(), runs.simulated(pipe, subject, setting) as split, _Latents(pipe) as latents:
        for which in runs.batches(count, batch):
            pictures = runs.call(split, pipe, subject, which, seed=seed, output="np")
            made.pictures += list(np.asarray(pictures, np.float32))
            made.latents += list(latents.last)
            course = split.course
            if course is not None:
                made.courses.append(course.facts)
                made.reason = made.reason or course.reason
            cost = float(subject.steps) if course is None else bounds.forwards(shares, course)
            made.forwards += [cost] * len(which)
    return made


class _Latents:
    """Keeps what the decoder was last given."""

    def __init__(self, pipe: Any) -> None:
        self._vae = pipe.vae
        self.last: Any = ()

    def __enter__(self) -> _Latents:
        self._decode = self._vae.decode

        def decode(latents: Any, *args: Any, **kwargs: Any) -> Any:
            self.last = latents.float().cpu().numpy()
            return self._decode(latents, *args, **kwargs)

        self._vae.decode = decode
        return self

    def __exit__(self, *_: object) -> None:
        self._vae.decode = self._decode


def drift(
    subject: Subject,
    settings: Sequence[Setting],
    *,
    count: int,
    batch: int,
    seed: int,
    reader: Reader | None,
    say: Callable[[str], None] = lambda _: None,
    show: Callable[[Setting, Sequence[Any]], None] = lambda _setting, _pictures: None,
) -> list[dict[str, Any]]:
    """One row a setting; the first of them must be Exact. `show` is given each setting's pictures.

    Raises BadConfiguration for a setting that the model can't have, before any picture is made.
    """
    pipe = subject.pipeline()
    exact: Made | None = None
    rows = []
    shares = [bounds.shares_of(pipe, subject, setting) for setting in settings]
    for setting, share in zip(settings, shares, strict=True):
        say(f"{setting.text}: {count} pictures")
        made = make(pipe, subject, setting, count=count, batch=batch, seed=seed, shares=share)
        exact = exact or made
        show(setting, made.pictures)
        rows.append(_row(subject, setting, made, exact, reader))
    return rows


def _row(subject: Subject, setting: Setting, made: Made, exact: Made, reader: Reader | None) -> dict[str, Any]:
    from frazil_jobs.generation.quality import clip_score_of, learned_metrics, lpips_of, psnr, relative_error, ssim

    pairs = list(zip(made.pictures, exact.pictures, strict=True))
    decibels = [min(psnr(one, other), MOST_DECIBELS) for one, other in pairs]
    similar = [ssim(one, other) for one, other in pairs]
    apart = [relative_error(one, other) for one, other in zip(made.latents, exact.latents, strict=True)]
    learned = learned_metrics()
    return {
        "mode": setting.mode,
        "setting": setting.detail,
        "conditioning": setting.parallelism.conditioning,
        "ranks": setting.ranks,
        "bound_over_exact": bound_of(subject, setting, made),
        "psnr_db": statistics.median(decibels),
        "psnr_db_worst_tenth": tenth(decibels),
        "psnr_db_least": min(decibels),
        "ssim": statistics.median(similar),
        "ssim_worst_tenth": tenth(similar),
        "latent_relative_error": statistics.median(apart),
        "latent_relative_error_worst_tenth": tenth(apart, highest=True),
        "lpips": statistics.median(lpips_of(*pair) for pair in pairs) if learned["lpips"] is None else None,
        "clip_score": statistics.median(clip_score_of(*pair) for pair in _with_prompts(subject, made.pictures))
        if learned["clip"] is None
        else None,
        "prompt_accuracy": accuracy(subject, made.pictures, reader),
        "pictures": len(pairs),
        "budget_kept": _kept(setting, decibels),
        "all_whole_because": made.reason or None,
        "not_computed": {name: why for name, why in learned.items() if why},
    }


def bound_of(subject: Subject, setting: Setting, made: Made) -> float:
    """Of the speed over the exact split, of a picture's steps: the median."""
    steps = subject.steps
    return statistics.median(bounds.over_exact(setting, steps=steps, forwards=cost) for cost in made.forwards)


def _kept(setting: Setting, decibels: Sequence[float]) -> float | None:
    """The share of pictures within the budget that was asked for."""
    if setting.mode != "Guided" or setting.parallelism.switching.budget == "inf":
        return None
    asked = float(setting.parallelism.switching.budget)
    return sum(value >= asked for value in decibels) / len(decibels)


def tenth(values: Sequence[float], *, highest: bool = False) -> float:
    """The value that nine in ten reach: the lowest tenth's upper end, or the highest tenth's lower one."""
    ordered = sorted(values, reverse=highest)
    return ordered[math.ceil(len(ordered) / 10) - 1]


def accuracy(subject: Subject, pictures: Sequence[Any], reader: Reader | None) -> float | None:
    """The share of pictures that show what their prompts say; None without a reader."""
    if reader is None:
        return None
    import numpy as np

    right = [
        reader(prompt, (np.clip(picture, 0, 1) * 255).round().astype(np.uint8))
        for picture, prompt in _with_prompts(subject, pictures)
    ]
    return sum(right) / len(right)


def _with_prompts(subject: Subject, pictures: Sequence[Any]) -> list[tuple[Any, str]]:
    return list(zip(pictures, itertools.cycle(subject.prompts), strict=False))
