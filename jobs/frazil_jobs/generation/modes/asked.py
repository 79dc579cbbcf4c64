"""What a job's mode comes to: the mode that runs, the ranks as stages, and why it may be exact after all.

Decided from small files, before any weight is read. A mode that changes images is never chosen in silence; the other
way, from an approximate mode to exact, the reason is recorded in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from frazil_jobs.api.parallelism import Mode, Parallelism, Switching
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.modes.budget import latent_error
from frazil_jobs.generation.modes.samplers import hindrance, in_steps
from frazil_jobs.generation.modes.sensitivity import NotKnown, sensitivities
from frazil_jobs.generation.rank_grid import PIPELINE_FIELD, RankGrid
from frazil_jobs.generation.stages.cut import check_stages, most_stages
from frazil_jobs.generation.stages.units import Anatomy, Uncuttable, anatomy_of
from frazil_jobs.generation.switching import WindowRule

if TYPE_CHECKING:
    import torch

    from frazil_jobs.generation.guidance import Guidance

MODE_FIELD: Final = "spec.parallelism.mode"
WHOLE_REMEDY: Final = f"set {MODE_FIELD} to Exact"


@dataclass(frozen=True, kw_only=True)
class AskedMode:
    """A job's mode as it will run."""

    asked: Mode = "Exact"
    switching: Switching
    whole_because: str = ""
    """Why every step is whole although the mode asked for is approximate, as a clause; empty where it isn't so."""
    stages: int = 1
    """Stages of a staged step; 1: no step is staged."""
    live: bool = False
    """Each branch has a line of stages of its own; otherwise all ranks are one line for the prompt's branch."""

    @property
    def runs(self) -> Mode:
        """The mode that runs."""
        return "Exact" if self.whole_because else self.asked

    @property
    def allowed_error(self) -> float:
        """See `budget.latent_error`."""
        return latent_error(float(self.switching.budget))

    def whole(self, reason: str) -> AskedMode:
        """The same with all steps whole. Raises BadConfiguration where there are ranks that would have nothing to do."""
        if self.live or self.stages > 2:
            raise BadConfiguration(
                f"all steps would be whole, and the pipeline's ranks without work: {reason}",
                field=PIPELINE_FIELD,
                remedy=f"set it to 1, or {WHOLE_REMEDY} and use sequence or replicas for more GPUs",
            )
        return replace(self, whole_because=reason, stages=1, live=False)


EXACT: Final = AskedMode(switching=Switching())


def asked_mode(
    parallelism: Parallelism,
    grid: RankGrid,
    guidance: Guidance,
    *,
    scheduler: tuple[type, Mapping[str, Any]] | None,
    steps: int | None,
    extra: Mapping[str, Any],
) -> AskedMode:
    """The mode of a job. `scheduler`: class and values; `steps`: the job's, or the pipeline's default, if known.

    Raises BadConfiguration for what can't be run even exactly on the ranks that the job asks for.
    """
    if parallelism.mode == "Exact":
        return EXACT
    mode = AskedMode(asked=parallelism.mode, switching=parallelism.switching, **_lines(parallelism, grid))
    reason = _why_whole(mode, guidance, scheduler, steps, extra)
    if reason:
        return mode.whole(reason)
    if mode.stages > 1 and not mode.live:
        _check_one_line(mode, guidance)
    return mode


def _lines(parallelism: Parallelism, grid: RankGrid) -> dict[str, Any]:
    if parallelism.mode == "Hybrid":
        return {"stages": grid.conditioning * grid.pipeline, "live": False}
    return {"stages": grid.pipeline, "live": grid.pipeline > 1 and grid.conditioning > 1}


def _why_whole(
    mode: AskedMode,
    guidance: Guidance,
    scheduler: tuple[type, Mapping[str, Any]] | None,
    steps: int | None,
    extra: Mapping[str, Any],
) -> str:
    if not guidance.guided:
        return f"there is no guidance to approximate: {guidance.reason}"
    if scheduler is None:
        return "the pipeline has no scheduler that can be looked at"
    found = hindrance(*scheduler, extra)
    if found:
        return found
    if mode.asked == "Guided":
        walker = in_steps(*scheduler)
        try:
            sensitivities(walker, steps=len(walker.timesteps))
        except NotKnown as error:
            return str(error)
    return "" if steps is None else too_few(mode, steps)


def on_denoisers(mode: AskedMode, structures: Iterable[torch.nn.Module]) -> AskedMode:
    """The mode on denoisers of these structures. Raises BadConfiguration where one can't be cut into as many stages."""
    for structure in structures:
        try:
            anatomy = anatomy_of(structure)
        except Uncuttable as error:
            return mode.whole(str(error))
        if mode.stages > 1:
            _check_cut(mode, anatomy)
    return mode


def _check_cut(mode: AskedMode, anatomy: Anatomy) -> None:
    try:
        check_stages(anatomy, mode.stages)
    except Uncuttable as error:
        most = most_stages(anatomy) // (2 if mode.asked == "Hybrid" else 1)  # its two branches' ranks are stages too
        raise BadConfiguration(
            f"mode {mode.asked} makes {mode.stages} stages of its ranks, and {error}",
            field=PIPELINE_FIELD,
            remedy=f"set it to {most}" if anatomy.nested else f"set it to {most} or less",
        ) from None


def too_few(mode: AskedMode, steps: int) -> str:
    """Why `steps` steps are too few for the mode, as a clause, or nothing."""
    if mode.asked == "Hybrid":
        try:
            WindowRule.of(mode.switching, steps=steps)
        except ValueError as error:
            return f"the steps are too few: {error}"
    elif steps <= mode.switching.predictor_order + 2:
        return f"the steps are too few: {steps}, of which {mode.switching.predictor_order + 2} must be whole"
    return ""


def _check_one_line(mode: AskedMode, guidance: Guidance) -> None:
    if guidance.style == "one-call" and guidance.conditions == 2 and guidance.conditional is not None:
        return
    what = "the window of mode Hybrid" if mode.asked == "Hybrid" else "one line of stages"
    raise BadConfiguration(
        f"{what} takes the prompt's branch out of a call of two stacked branches, and {guidance.reason}",
        field=MODE_FIELD,
        remedy="set it to Guided with conditioning 2, or to Exact",
    )


def acting_grid(parallelism: Parallelism, grid: RankGrid) -> RankGrid:
    """The grid in whole steps: Guided stages of one condition share the two branches between their halves."""
    if parallelism.mode != "Guided" or grid.pipeline == 1 or grid.conditioning == 2:
        return grid
    if grid.pipeline % 2:
        raise BadConfiguration(
            f"{grid.pipeline} stages with conditioning 1 evaluate the two branches on half of the ranks each in whole steps",
            field=PIPELINE_FIELD,
            remedy="set it to an even number",
        )
    return RankGrid(conditioning=2, pipeline=grid.pipeline // 2, sequence=grid.sequence)
