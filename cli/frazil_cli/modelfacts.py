"""What a model's small files say that a plan needs: how guidance is evaluated, what can't work, the size of one message.

Loads diffusers (some ten seconds) for the checks that need a pipeline's class, never a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frazil_jobs.api.generationjob import GenerationJob, Sampling
from frazil_jobs.base.exits import FrazilError
from frazil_jobs.base.files import read_json

if TYPE_CHECKING:
    from frazil_jobs.api.parallelism import Switching
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


def check(job: GenerationJob, *, folder: Path, pipeline: str, ranks: int, negative_prompts: bool) -> Checked:
    """Everything that the ranks would refuse before they load weights; all of it, not the first alone."""
    from frazil_jobs.generation import media
    from frazil_jobs.generation.calls import plan_call
    from frazil_jobs.generation.guidance import guidance_of
    from frazil_jobs.generation.load import Folder, pipeline_class, scheduler_class
    from frazil_jobs.generation.modes.asked import acting_grid
    from frazil_jobs.generation.prepare import mode_of
    from frazil_jobs.generation.rank_grid import grid_for

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
        mode = attempt(lambda: mode_of(spec, read, plan, guidance, grid, scheduler))
    return Checked(guidance, mode, tuple(problems))


def mode_costs(folder: Path, sampling: Sampling, switching: Switching) -> list[ModeCost] | str:
    """What each mode would cost by operation count, or why that can't be counted."""
    from frazil_jobs.generation.costs import modes
    from frazil_jobs.generation.costs.models import CannotCount, of_folder
    from frazil_jobs.generation.stages.units import Uncuttable

    try:
        model = of_folder(folder)
        own = model.config.get("sample_size")
        side = own * model.scale if isinstance(own, int) else None
        height, width = sampling.height or side, sampling.width or side
        if not height or not width or sampling.frames is not None:
            return "the size of a latent is not known from the configs"
        steps = sampling.steps or DEFAULT_STEPS
        return modes.mode_costs(model, height=height, width=width, steps=steps, switching=switching)
    except CannotCount as error:
        return error.message
    except (Uncuttable, RuntimeError, NotImplementedError, TypeError, ValueError, KeyError, AttributeError) as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__


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
