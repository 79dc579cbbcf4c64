"""What a course of steps costs by operation count, so that a measured speed-up has its bound beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frazil_cli.bench_modes import runs
from frazil_cli.bench_modes.settings import Setting
from frazil_cli.bench_modes.subject import Subject
from frazil_jobs.base.exits import BadConfiguration

if TYPE_CHECKING:
    from frazil_jobs.generation.costs.modes import Shares
    from frazil_jobs.generation.modes.policy import Course


def forwards(shares: Shares | None, course: Course) -> float:
    """A course's cost in whole steps; without shares all of it was whole."""
    from frazil_jobs.generation.modes.policy import Kind

    if shares is None:
        return float(len(course.kinds))
    return shares.forwards(
        whole=course.count(Kind.WHOLE), reused=course.count(Kind.REUSED), staged=course.count(Kind.STAGED)
    )


def over_exact(setting: Setting, *, steps: int, forwards: float) -> float:
    """The bound of a setting's speed over the exact split of two ranks, from what its steps cost in whole ones."""
    return steps / forwards * runs.branches_shared(setting) / 2


def shares_of(pipe: Any, subject: Subject, setting: Setting) -> Shares | None:
    """Counted on the arguments of a real first step, for the pipeline's first denoiser; None where all steps are whole.

    Raises BadConfiguration for a setting that the pipeline can't have.
    """
    try:
        runs.branches_shared(setting)
        return _counted(pipe, subject, setting)
    except BadConfiguration as error:
        raise BadConfiguration(error.message, field=f"{setting.text}: {error.field}", remedy=error.remedy) from None


def _counted(pipe: Any, subject: Subject, setting: Setting) -> Shares | None:
    import torch
    from torch.utils._pytree import tree_map

    from frazil_jobs.generation.costs import modes
    from frazil_jobs.generation.costs.counting import count
    from frazil_jobs.generation.stages.units import Uncuttable, structure_of

    mode = runs.mode_of(pipe, subject, setting)
    if mode.runs == "Exact":
        return None

    denoiser, branch = _first_branch(pipe, subject)
    twin = structure_of(type(denoiser), denoiser.config)
    on_meta = tree_map(lambda value: value.to("meta") if isinstance(value, torch.Tensor) else value, branch)
    try:
        return modes.shares_of(denoiser, count(twin, **on_meta), stages=max(2, mode.stages))
    except Uncuttable as error:
        mode.whole(str(error))
        return None


def _first_branch(pipe: Any, subject: Subject) -> tuple[Any, dict[str, Any]]:
    """The denoiser, and its arguments for one branch and picture of a first step."""
    import torch

    from frazil_jobs.generation.arguments import Rows, conditions_in, cut, latent_of, named
    from frazil_jobs.generation.guidance import DENOISERS

    denoiser = next(model for name in DENOISERS if (model := getattr(pipe, name, None)) is not None)
    seen: list[dict[str, Any]] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(named(module, args, kwargs))

    handle = denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            arguments = subject.arguments(pipe, subject.prompts[:1], [0])
            pipe(**{**arguments, "num_inference_steps": 2}, output_type="latent")
    finally:
        handle.remove()
    conditions = conditions_in(latent_of(seen[0], denoiser), batch=1, module=denoiser)
    return denoiser, cut(denoiser, seen[0], Rows(start=0, batch=1, total=conditions))
