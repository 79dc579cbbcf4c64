"""What a model's small files say that a plan needs: how guidance is evaluated, what can't work, the size of one message.

Loads diffusers (some ten seconds) for the checks that need a pipeline's class, never a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frazil_jobs.api.generationjob import GenerationJob, Sampling
from frazil_jobs.base.exits import BadConfiguration, FrazilError
from frazil_jobs.base.files import read_json

if TYPE_CHECKING:
    from frazil_jobs.api.parallelism import Parallelism
    from frazil_jobs.generation.calls import CallPlan
    from frazil_jobs.generation.costs.counting import Counted
    from frazil_jobs.generation.costs.modes import ModeCost
    from frazil_jobs.generation.guidance import Guidance
    from frazil_jobs.generation.modes.asked import AskedMode

DENOISERS = ("unet", "transformer")
DEFAULT_STEPS = 50
"""Of most pipelines, where a job leaves them out."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Checked:
    """What came out of the checks."""

    guidance: Guidance | None
    mode: AskedMode | None
    problems: tuple[FrazilError, ...]
    call: CallPlan | None = None
    scheduler: type | None = None
    """The one that the job asks for."""


def check(job: GenerationJob, *, folder: Path, pipeline: str, ranks: int, negative_prompts: bool) -> Checked:
    """Everything that the ranks would refuse before they load weights; all of it, not the first alone."""
    from frazil_jobs.generation import media
    from frazil_jobs.generation.calls import plan_call
    from frazil_jobs.generation.guidance import guidance_of
    from frazil_jobs.generation.load import Folder, pipeline_class, scheduler_class
    from frazil_jobs.generation.modes.asked import acting_grid
    from frazil_jobs.generation.prepare import mode_of
    from frazil_jobs.generation.rank_grid import grid_for
    from frazil_jobs.generation.sequence import check_sequence

    problems: list[FrazilError] = []

    def attempt(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except FrazilError as error:
            problems.append(error)
            return None

    spec = job.spec
    kind = attempt(lambda: pipeline_class(pipeline))
    if kind is None:
        return Checked(None, None, tuple(problems))
    read = Folder.read(folder)
    plan = attempt(lambda: plan_call(kind, spec.sampling))
    if plan is not None:
        attempt(lambda: media.check_format(plan.kind, spec.output.format, pipeline=plan.pipeline))
    scheduler = attempt(lambda: scheduler_class(read, spec.sampling.scheduler))
    guidance = attempt(lambda: guidance_of(kind, spec.sampling, folder, negative_prompts=negative_prompts))
    grid = attempt(lambda: grid_for(job, guidance, ranks)) if guidance is not None else None
    mode = None
    if grid is not None and plan is not None:
        attempt(lambda: acting_grid(spec.parallelism, grid))
        attempt(lambda: check_sequence(folder, grid.sequence))
        mode = attempt(lambda: mode_of(spec, read, plan, guidance, grid, scheduler))
    return Checked(guidance, mode, tuple(problems), plan, scheduler)


def alternatives(asked: Parallelism) -> list[Parallelism]:
    """What a job could choose instead, its own among them: every mode on its grid (without stages where mode is Exact),
    and what Guided saves on one rank."""
    one_rank = {"conditioning": 1, "pipeline": 1, "sequence": 1}
    updates: list[dict[str, Any]] = [
        {"mode": "Exact", "pipeline": 1},
        {"mode": "Hybrid", "conditioning": 2},
        {"mode": "Guided"},
        {"mode": "Guided", **one_rank},
    ]
    found: list[Parallelism] = []
    for update in updates:
        one = asked.model_copy(update=update)
        if one not in found:
            found.append(one)
    return found


def mode_costs(job: GenerationJob, *, folder: Path, checked: Checked) -> list[tuple[Parallelism, ModeCost]] | str:
    """What each alternative would cost by operation count, or why that can't be counted."""
    from frazil_jobs.generation.costs.models import CannotCount, of_folder

    sampling = job.spec.sampling
    try:
        model = of_folder(folder)
        own = model.config.get("sample_size")
        side = own * model.scale if isinstance(own, int) else None
        height, width = sampling.height or side, sampling.width or side
        if not height or not width or sampling.frames is not None:
            return "the size of a latent is not known from the configs"
        counted, latent = model.counted(height, width), model.latent_elements(height, width)
        denoiser = model.denoiser()
        return [
            (one, _cost(_with(job, one), folder, checked, denoiser, counted, latent))
            for one in alternatives(job.spec.parallelism)
        ]
    except CannotCount as error:
        return error.message
    except (RuntimeError, NotImplementedError, TypeError, ValueError, KeyError, AttributeError) as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__


def _with(job: GenerationJob, parallelism: Parallelism) -> GenerationJob:
    return job.model_copy(update={"spec": job.spec.model_copy(update={"parallelism": parallelism})})


def _cost(job: GenerationJob, folder: Path, checked: Checked, denoiser: Any, counted: Counted, latent: int) -> ModeCost:
    """That of a job's mode as it would run: refused, with all steps whole, or approximated."""
    from frazil_jobs.generation.costs import modes
    from frazil_jobs.generation.load import Folder
    from frazil_jobs.generation.modes.asked import acting_grid, too_few
    from frazil_jobs.generation.prepare import mode_of
    from frazil_jobs.generation.rank_grid import RankGrid, grid_for
    from frazil_jobs.generation.sequence import check_sequence
    from frazil_jobs.generation.stages.units import Uncuttable

    asked, steps = job.spec.parallelism, job.spec.sampling.steps or DEFAULT_STEPS
    world = RankGrid.of(asked).world
    assert checked.guidance is not None
    assert checked.call is not None
    shares = None
    try:
        grid = grid_for(job, checked.guidance, world)
        acting = acting_grid(asked, grid)
        check_sequence(folder, grid.sequence)
        mode = mode_of(job.spec, Folder.read(folder), checked.call, checked.guidance, grid, checked.scheduler)
        if mode.runs != "Exact" and (reason := too_few(mode, steps)):
            mode = mode.whole(reason)
        if mode.runs != "Exact":
            try:
                shares = modes.shares_of(denoiser, counted, stages=max(2, mode.stages))
            except Uncuttable as error:
                mode = mode.whole(str(error))
    except BadConfiguration as error:
        return modes.refused(world, error.message)
    return modes.cost_of(mode, grid, acting, shares, latent=latent, steps=steps)


def prediction_elements(folder: Path, sampling: Sampling) -> int | None:
    """Numbers in the prediction of one branch for one picture: channels × height × width of the latent.

    None where the configs don't say it (video with a compression that they don't name): `frazil bench exact` counts.
    """
    denoiser = next((found for name in DENOISERS if (found := _config(folder / name))), {})
    vae = _config(folder / "vae")
    levels = vae.get("block_out_channels")
    if not denoiser or not isinstance(levels, list):
        return None
    scale = int(vae.get("scale_factor_spatial") or vae.get("spatial_compression_ratio") or 2 ** (len(levels) - 1))
    height, width = _sides(denoiser, sampling, scale)
    channels = denoiser.get("out_channels") or denoiser.get("in_channels")
    if height is None or width is None or not channels:
        return None
    if channels == 4 * vae.get("latent_channels", 0):
        channels //= 4  # two by two latent pixels are packed into one token
    frames = _latent_frames(vae, sampling)
    return None if frames is None else int(channels) * frames * height * width


def _sides(denoiser: Mapping[str, Any], sampling: Sampling, scale: int) -> tuple[int | None, int | None]:
    size = denoiser.get("sample_size")
    own = size if isinstance(size, list) else [size, size]
    sides = [
        asked // scale if asked else default
        for asked, default in zip((sampling.height, sampling.width), own, strict=False)
    ]
    return sides[0], sides[1]


def _latent_frames(vae: Mapping[str, Any], sampling: Sampling) -> int | None:
    if sampling.frames is None:
        return 1
    ratio = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio")
    return (sampling.frames - 1) // int(ratio) + 1 if ratio else None


def _config(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(folder / "config.json")
    except (OSError, ValueError):
        return {}
    return found
