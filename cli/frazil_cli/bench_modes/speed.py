"""How fast each setting is on two ranks of one thread, each pinned to a core: `frazil bench modes`.

In each round every setting runs its whole loop once, beside one rank's stock call and the exact split, in an order that
turns from round to round; ratios are taken round by round and their medians reported. `python -m` starts one rank.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frazil_cli import bench_ranks
from frazil_cli.bench_modes import bounds, runs
from frazil_cli.bench_modes.settings import Setting, parse
from frazil_cli.bench_modes.subject import Subject
from frazil_jobs.base.exits import BadConfiguration

if TYPE_CHECKING:
    from frazil_jobs.generation.groups import RankGroups

ONE = "one"
RANKS = 2
SECONDS = 6 * 3600.0


def speeds(subject: Subject, settings: Sequence[Setting], *, rounds: int, batch: int) -> list[dict[str, Any]]:
    """One row a setting: medians of ratios of the loop (the denoiser's first entry to its last exit).

    Raises BadConfiguration for a setting of more ranks than are timed here.
    """
    check_ranks(settings)
    document = {
        "subject": subject.document(),
        "settings": [setting.text for setting in settings],
        "rounds": rounds,
        "batch": batch,
        "device": "cpu",
    }
    found: list[dict[str, Any]] = bench_ranks.measure("frazil_cli.bench_modes.speed", document, seconds=SECONDS)
    return found


def check_ranks(settings: Sequence[Setting]) -> None:
    """Raise BadConfiguration for a setting of more than RANKS ranks."""
    for setting in settings:
        if setting.ranks > RANKS:
            raise BadConfiguration(
                f"{setting.text} takes {setting.ranks} ranks, and {RANKS} are timed here, each on a core of its own",
                field="--setting",
                remedy="leave it out; its distance and its bound are said by `frazil bench quality`",
            )


def _rank_main(workdir: Path, rank: int, core: int) -> None:
    with bench_ranks.joined(workdir, rank, core, staged=True) as (document, groups, _):
        bench = _Bench(document, groups)
        bench.round(0)  # warms up
        bench.steps.clear()
        rounds = [bench.round(number) for number in range(1, document["rounds"] + 1)]
        bench_ranks.leave_result(workdir, rank, lambda: bench.result(rounds))


class _Bench:
    """One rank's pipeline and settings."""

    def __init__(self, document: dict[str, Any], groups: RankGroups) -> None:
        self.subject = Subject.read(document["subject"])
        self.settings = [parse(text) for text in document["settings"]]
        self.batch = int(document["batch"])
        self.groups = groups
        self.pipe = self.subject.pipeline()
        denoiser = getattr(self.pipe, "transformer", None) or self.pipe.unet
        self.clock = bench_ranks.Clock(denoiser, lambda: None)
        self.shares = {setting.text: bounds.shares_of(self.pipe, self.subject, setting) for setting in self.settings}
        self.forwards: dict[str, float] = {}
        self.steps: dict[str, dict[str, list[float]]] = {}

    def round(self, number: int) -> dict[str, float]:
        """Seconds of every setting's loop, each once."""
        import torch.distributed as dist

        names = [ONE, *(setting.text for setting in self.settings)]
        found = {}
        for position in range(len(names)):
            name = names[(position + number) % len(names)]
            dist.barrier()
            seconds = self._stock() if name == ONE else self._under(parse(name))
            if seconds is not None:
                found[name] = seconds
        return found

    def _stock(self) -> float | None:
        """Rank 0 alone; rank 1 waits in the next barrier."""
        if self.groups.rank == 1:
            return None
        self.clock.reset()
        prompts = [self.subject.prompts[index % len(self.subject.prompts)] for index in range(self.batch)]
        self.pipe(**self.subject.arguments(self.pipe, prompts, range(self.batch)), output_type="latent")
        return self.clock.loop

    def _under(self, setting: Setting) -> float | None:
        from frazil_jobs.generation.groups import one_rank

        alone = setting.ranks == 1
        if alone and self.groups.rank == 1:
            return None
        groups = one_rank() if alone else self.groups
        with runs.on_ranks(self.pipe, self.subject, setting, groups) as split:
            self.clock.reset()
            started = time.perf_counter()
            runs.call(split, self.pipe, self.subject, range(self.batch), seed=0, output="latent")
            seconds = self.clock.loop if self.clock.left else time.perf_counter() - started
            if split.course is not None:
                self.forwards[setting.text] = bounds.forwards(self.shares[setting.text], split.course)
                by_kind = self.steps.setdefault(setting.text, {})
                for kind, forward in zip(split.course.kinds, self._step_seconds(len(split.course.kinds)), strict=True):
                    by_kind.setdefault(str(kind), []).append(forward)
            elif setting.mode == "Exact":
                self.steps.setdefault(setting.text, {}).setdefault("whole", []).extend(self.clock.forwards)
        return seconds

    def _step_seconds(self, steps: int) -> list[float]:
        """Of each step, whether its branches come in one call or in two."""
        forwards = self.clock.forwards
        each = max(1, len(forwards) // steps)
        return [sum(forwards[step * each : (step + 1) * each]) for step in range(steps)]

    def result(self, rounds: list[dict[str, float]]) -> list[dict[str, Any]]:
        """A row a setting."""
        return [self._row(setting, rounds) for setting in self.settings]

    def _row(self, setting: Setting, rounds: list[dict[str, float]]) -> dict[str, Any]:
        over_one = [row[ONE] / row[setting.text] for row in rounds]
        over_exact = [row["Exact"] / row[setting.text] for row in rounds]
        forwards = self.forwards.get(setting.text, float(self.subject.steps))
        bound = bounds.over_exact(setting, steps=self.subject.steps, forwards=forwards)
        whole = statistics.median(self.steps["Exact"]["whole"])
        kinds = self.steps.get(setting.text, {})
        return {
            "mode": setting.mode,
            "setting": setting.detail,
            "conditioning": setting.parallelism.conditioning,
            "ranks": setting.ranks,
            "speedup_over_one": statistics.median(over_one),
            "speedup_over_exact": statistics.median(over_exact),
            "bound_over_exact": bound,
            "of_bound": statistics.median(over_exact) / bound,
            "spread_over_exact": [min(over_exact), max(over_exact)],
            "step_over_exact": {kind: statistics.median(seconds) / whole for kind, seconds in kinds.items()},
            "steps_measured": {kind: len(seconds) for kind, seconds in kinds.items()},
            "counted_step": self._counted(setting),
            "branch_ms": 1000 * whole,
            "rounds": len(rounds),
            "batch": self.batch,
        }

    def _counted(self, setting: Setting) -> dict[str, float]:
        shares = self.shares[setting.text]
        return {} if shares is None else {"reused": shares.reused, "staged": shares.staged}


if __name__ == "__main__":
    _rank_main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
