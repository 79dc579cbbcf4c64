"""One pipeline under one setting: in this process (`simulated`), or as one of two ranks (`on_ranks`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frazil_cli.bench_modes.settings import Setting
from frazil_cli.bench_modes.subject import Subject
from frazil_jobs.generation.rank_grid import RankGrid

if TYPE_CHECKING:
    from frazil_jobs.generation.branches import BranchSplit
    from frazil_jobs.generation.groups import RankGroups
    from frazil_jobs.generation.guidance import FolderConfigs
    from frazil_jobs.generation.modes.asked import AskedMode


def configs_of(subject: Subject) -> FolderConfigs:
    """The small files of the subject's folder."""
    from frazil_jobs.generation.guidance import FolderConfigs

    return FolderConfigs.read(Path(subject.model))


def mode_of(pipe: Any, subject: Subject, setting: Setting) -> AskedMode:
    """The setting as it will run on this pipeline. Raises BadConfiguration."""
    from frazil_jobs.generation.guidance import guidance_of_call
    from frazil_jobs.generation.modes.asked import asked_mode

    arguments = subject.arguments(pipe, subject.prompts[:1], [0])
    return asked_mode(
        setting.parallelism,
        RankGrid.of(setting.parallelism),
        guidance_of_call(type(pipe), arguments, configs_of(subject)),
        scheduler=(type(pipe.scheduler), pipe.scheduler.config),
        steps=subject.steps,
        extra={},
    )


def branches_shared(setting: Setting) -> int:
    """Ranks that share the branches of a whole step. Raises BadConfiguration."""
    from frazil_jobs.generation.modes.asked import acting_grid

    return acting_grid(setting.parallelism, RankGrid.of(setting.parallelism)).conditioning


@contextmanager
def simulated(pipe: Any, subject: Subject, setting: Setting) -> Iterator[BranchSplit]:
    """Hooks that give, in this process, what the setting's ranks would give."""
    from frazil_jobs.generation.simulate import simulate

    mode = mode_of(pipe, subject, setting)
    one_by_one = branches_shared(setting) > 1
    with simulate(pipe, configs_of(subject), mode, one_by_one=one_by_one, record=False) as split:
        yield split


@contextmanager
def on_ranks(pipe: Any, subject: Subject, setting: Setting, groups: RankGroups) -> Iterator[BranchSplit]:
    """Hooks of this rank. For a setting of one rank only rank 0 should call, with groups of its own alone."""
    from frazil_jobs.generation.branches import split_branches

    with split_branches(pipe, groups, configs_of(subject), mode=mode_of(pipe, subject, setting)) as split:
        yield split


def batches(count: int, size: int) -> Iterator[range]:
    """0 … count - 1 in runs of `size`."""
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def call(split: BranchSplit, pipe: Any, subject: Subject, which: Sequence[int], *, seed: int, output: str) -> Any:
    """Pictures (or latents) of the prompts of these numbers. Picture i has seed `seed` + i."""
    prompts = [subject.prompts[index % len(subject.prompts)] for index in which]
    arguments = subject.arguments(pipe, prompts, [seed + index for index in which])
    with split.call(arguments, batch_size=len(prompts)):
        return pipe(**arguments, output_type=output)[0]
