"""How a pipeline asks its denoiser for the branches of guidance, known before any weight is read.

Decided from the pipeline's class (the source and the signature of its `__call__`), the folder's configs and the arguments
of the call; never from tensors. Three ways exist in diffusers:

* one call: the branches are stacked along the batch, `torch.cat([latents] * 2)`: Stable Diffusion, SDXL, SD3, PixArt,
  LTX, CogVideoX, Stable Audio; three of them in InstructPix2Pix;
* two calls, one a branch, usually named by `cache_context("cond")` and `cache_context("uncond")`: Flux with a true
  guidance scale, Wan, Qwen;
* none: scale at or below the threshold, distilled models.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from frazil_jobs.base.files import read_json

if TYPE_CHECKING:
    from frazil_jobs.api.generationjob import Sampling

Style = Literal["one-call", "two-call", "none", "unsupported"]

DENOISERS: Final = ("unet", "transformer", "transformer_2")
"""Names of the components that predict noise."""

_STACKED = re.compile(r"torch\.cat\(\s*\[[\w.]*latent\w*\]\s*\*\s*(\d)")
_NAMED_SECOND_CALL = re.compile(r"cache_context\(\s*\"uncond\"")
_DENOISER_CALL = re.compile(r"(?:self\.(?:unet|transformer|transformer_2)|current_model)\(\s*\n")
_THRESHOLD = re.compile(r"guidance_scale\s*>\s*([\d.]+)")
_READS_INSIDE: Final = {
    "StableDiffusionAttendAndExcitePipeline": "steers by the attention of the stacked branches",
    "StableDiffusionPix2PixZeroPipeline": "steers by the attention of the stacked branches",
    "StableDiffusionSAGPipeline": "blurs by the attention of the stacked branches",
    "StableDiffusionDiffEditPipeline": "evaluates its denoiser on several maps at once",
    "SemanticStableDiffusionPipeline": "counts its branches by the concepts that are edited",
}
"""Pipelines that look inside of a batched denoiser call, so that cutting it changes what they see."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How one call of a pipeline evaluates guidance. `reason` is a clause for people: "guidance_scale is 0 …"."""

    style: Style
    conditions: int
    """Branches a step: 2 with classifier-free guidance, 3 in InstructPix2Pix, 1 without guidance."""
    reason: str

    @property
    def guided(self) -> bool:
        """True when there are branches that ranks can share."""
        return self.style in ("one-call", "two-call")


@dataclass(frozen=True, kw_only=True)
class FolderConfigs:
    """The configs that decide whether a model is guided. Plain JSON, read without torch."""

    pipeline: Mapping[str, Any] = field(default_factory=dict)
    """model_index.json."""
    denoisers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Component name -> its config.json."""

    @classmethod
    def read(cls, folder: Path) -> FolderConfigs:
        """The configs of a pipeline folder; a component that it has no config for is left out."""
        index = read_json(folder / "model_index.json")
        configs = {name: folder / name / "config.json" for name in DENOISERS}
        return cls(pipeline=index, denoisers={name: read_json(path) for name, path in configs.items() if path.exists()})


def guidance_of(pipeline_class: type, sampling: Sampling, folder: Path, *, negative_prompts: bool = False) -> Guidance:
    """The guidance of a job's calls. `negative_prompts`: any of its prompts brings a negative prompt of its own."""
    arguments: dict[str, Any] = dict(sampling.extra)
    if sampling.guidance_scale is not None:
        arguments["guidance_scale"] = float(sampling.guidance_scale)
    if sampling.negative_prompt is not None or negative_prompts:
        arguments["negative_prompt"] = sampling.negative_prompt or ""
    return guidance_of_call(pipeline_class, arguments, FolderConfigs.read(folder))


def guidance_of_call(pipeline_class: type, arguments: Mapping[str, Any], configs: FolderConfigs) -> Guidance:
    """The guidance of the call `pipeline(**arguments)`. Only scalars and the presence of arguments are looked at."""
    call = _Call(pipeline_class, arguments, configs)
    unguided = _why_unguided(call)
    if unguided:
        return Guidance(style="none", conditions=1, reason=unguided)
    hindrance = _READS_INSIDE.get(call.name) or _why_unsupported(call)
    if hindrance:
        return Guidance(style="unsupported", conditions=1, reason=f"{call.name} {hindrance}")
    stacked = call.stacked
    if stacked > 1:
        reason = f"{call.name} stacks {stacked} branches in one call"
        return Guidance(style="one-call", conditions=stacked, reason=reason)
    named = "named" if _NAMED_SECOND_CALL.search(call.source) else "unnamed"
    return Guidance(style="two-call", conditions=2, reason=f"{call.name} makes two {named} calls a step")


class _Call:
    """A pipeline class and one call of it, as the rules below look at them."""

    def __init__(self, pipeline_class: type, arguments: Mapping[str, Any], configs: FolderConfigs) -> None:
        function = inspect.unwrap(pipeline_class.__call__)
        self.name = pipeline_class.__name__
        self.configs = configs
        self._arguments = arguments
        self._parameters = inspect.signature(function).parameters
        self.source = _source(function)
        self.threshold = _threshold(pipeline_class)
        counts = [int(count) for count in _STACKED.findall(self.source)]
        self.stacked = 2 if 'cache_context("cond_uncond")' in self.source else max(counts, default=1)

    def takes(self, name: str) -> bool:
        """True when the pipeline has an argument of that name."""
        return name in self._parameters

    def value(self, name: str) -> Any:
        """What the call passes, or the default."""
        if name in self._arguments:
            return self._arguments[name]
        parameter = self._parameters.get(name)
        return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default

    def scale(self, name: str) -> float | None:
        """A guidance scale of the call, when it is a number."""
        value = self.value(name)
        return float(value) if isinstance(value, int | float) else None


def _why_unguided(call: _Call) -> str | None:
    """Why a call evaluates one branch only, or None."""
    markers = ("do_classifier_free_guidance", "do_true_cfg", "guider", "guidance_scale >")
    if call.stacked == 1 and not any(marker in call.source for marker in markers):
        return f"{call.name} has no classifier-free guidance (its model is distilled or unconditional)"
    if call.takes("true_cfg_scale"):
        scale = call.scale("true_cfg_scale")
        if scale is not None and scale <= 1:
            return f"true_cfg_scale is {scale:g} (guidance_scale only feeds the distilled embedding of {call.name})"
        if call.value("negative_prompt") is None and call.value("negative_prompt_embeds") is None:
            return f"{call.name} is given no negative prompt, so true_cfg_scale has no effect"
        return None
    name = "guidance_scale" if call.takes("guidance_scale") else "max_guidance_scale"
    scale = call.scale(name)
    if scale is not None and scale <= call.threshold:
        return f"{name} is {scale:g}"
    picture_scale = call.scale("image_guidance_scale")
    if picture_scale is not None and picture_scale < 1:
        return f"image_guidance_scale is {picture_scale:g}"
    if call.configs.pipeline.get("is_distilled"):
        return "the model is distilled (is_distilled in model_index.json)"
    if any(config.get("time_cond_proj_dim") for config in call.configs.denoisers.values()):
        return "the model is distilled (time_cond_proj_dim in its config)"
    return None


def _why_unsupported(call: _Call) -> str | None:
    """What keeps a guided call from being split, as the predicate of a sentence, or None."""
    if not call.source:
        return "comes without source, so that nothing is known of its calls"
    if "_perturbed_attention_guidance" in call.source and (call.scale("pag_scale") or 0) > 0:
        return "perturbs the attention of the stacked branches inside of one call (set pag_scale to 0)"
    if call.stacked > 1 or _NAMED_SECOND_CALL.search(call.source):
        return None
    if "_perturbed_attention_guidance" in call.source:
        return "stacks a number of branches that its source does not state"
    if len(_DENOISER_CALL.findall(call.source)) == 2 and "truncation" not in call.source:
        return None
    return "evaluates guidance in a way that Frazil does not know"


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def _threshold(pipeline_class: type) -> float:
    """Guidance is on above this scale: 1, or what the pipeline's own property says."""
    own = inspect.getattr_static(pipeline_class, "do_classifier_free_guidance", None)
    found = _THRESHOLD.search(_source(own.fget)) if isinstance(own, property) and own.fget else None
    return float(found.group(1)) if found else 1.0
