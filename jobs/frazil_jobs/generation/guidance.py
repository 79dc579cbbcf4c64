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

import ast
import functools
import inspect
import math
import re
import textwrap
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

# Patterns over source without comments and docstrings, as `ast.unparse` writes it.
_STACKED = re.compile(r"torch\.cat\(\[[\w.]*latent\w*\] \* (\d)")
_STACKED_BY_NAME = "cache_context('cond_uncond')"
_NAMED_SECOND_CALL = "cache_context('uncond'"
_DENOISER_CALL = re.compile(r"(?:self\.(?:unet|transformer|transformer_2)|current_model)\(")
_UNCONDITIONAL_FIRST = re.compile(r"\w*uncond\w*, \w+ = [\w.]+\.chunk\(2\)")
_NAMED_FIRST_CALL = "cache_context('cond'"
_THRESHOLD = re.compile(r"guidance_scale > ([\d.]+)")
_GUIDANCE_MARKS: Final = ("self.do_classifier_free_guidance", "do_classifier_free_guidance =", "do_true_cfg", "guider")
_HINDRANCES: Final = {
    "StableDiffusionAttendAndExcitePipeline": "steers by the attention of the stacked branches",
    "StableDiffusionPix2PixZeroPipeline": "steers by the attention of the stacked branches",
    "StableDiffusionSAGPipeline": "blurs by the attention of the stacked branches",
    "StableDiffusionDiffEditPipeline": "evaluates its denoiser on several maps at once",
    "SemanticStableDiffusionPipeline": "counts its branches by the concepts that are edited",
    "LTX2": "predicts picture and sound together",
    "AnimateDiff": "repeats its text for every frame",
    "PIA": "repeats its text for every frame",
}
"""Beginning of a class name -> what keeps its denoiser calls from being cut, though its source looks as if they could be."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How one call of a pipeline evaluates guidance. `reason` is a clause for people: "guidance_scale is 0 …"."""

    style: Style
    conditions: int
    """Branches a step: 2 with classifier-free guidance, 3 in InstructPix2Pix, 1 without guidance."""
    reason: str
    asked_each_step: bool = False
    """The pipeline's `do_classifier_free_guidance` decides anew in each step whether there is a second call."""
    conditional: int | None = None
    """Which of two branches is the prompt's, in the pipeline's order; None where that isn't known."""
    scale: float | None = None
    """How much of the branches' difference guidance adds to the branch without the prompt."""

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
    call = _Call(facts=_facts_of(pipeline_class), arguments=arguments)
    name, stacked = pipeline_class.__name__, call.facts.stacked
    unguided = _why_unguided(call, configs)
    if unguided:
        return Guidance(style="none", conditions=1, reason=unguided)
    hindrance = _why_unsupported(call.facts)
    if hindrance:
        return Guidance(style="unsupported", conditions=1, reason=f"{name} {hindrance}")
    scale = call.scale("true_cfg_scale" if "true_cfg_scale" in call.facts.parameters else _scale_name(call.facts))
    if stacked > 1:
        return Guidance(
            style="one-call",
            conditions=stacked,
            reason=f"{name} stacks {stacked} branches in one call",
            conditional=1 if stacked == 2 and _UNCONDITIONAL_FIRST.search(call.facts.source) else None,
            scale=scale,
        )
    named = "named" if _NAMED_SECOND_CALL in call.facts.source else "unnamed"
    return Guidance(
        style="two-call",
        conditions=2,
        reason=f"{name} makes two {named} calls a step",
        asked_each_step="self.do_classifier_free_guidance" in call.facts.source,
        conditional=0 if _names_prompt_first(call.facts.source) else None,
        scale=scale,
    )


def _names_prompt_first(source: str) -> bool:
    first = source.find(_NAMED_FIRST_CALL)
    return 0 <= first < source.find(_NAMED_SECOND_CALL)


def _scale_name(facts: _Facts) -> str:
    return "guidance_scale" if "guidance_scale" in facts.parameters else "max_guidance_scale"


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What the rules below know of a pipeline class."""

    name: str
    parameters: Mapping[str, inspect.Parameter]
    source: str
    """Of `__call__`, without comments and docstring; empty when there is none."""
    stacked: int
    """Branches in one denoiser call."""
    threshold: float
    """Guidance is on above this scale: 1, or what the pipeline's own property says; infinite where that says never."""


@functools.cache
def _facts_of(pipeline_class: type) -> _Facts:
    function = inspect.unwrap(pipeline_class.__call__)
    source = _source(function)
    counts = [int(count) for count in _STACKED.findall(source)]
    return _Facts(
        name=pipeline_class.__name__,
        parameters=inspect.signature(function).parameters,
        source=source,
        stacked=2 if _STACKED_BY_NAME in source else max(counts, default=1),
        threshold=_threshold(pipeline_class),
    )


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call of a pipeline."""

    facts: _Facts
    arguments: Mapping[str, Any]

    def value(self, name: str) -> Any:
        """What the call passes, or the default."""
        if name in self.arguments:
            return self.arguments[name]
        parameter = self.facts.parameters.get(name)
        return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default

    def scale(self, name: str) -> float | None:
        """A guidance scale of the call, when it is a number."""
        value = self.value(name)
        return float(value) if isinstance(value, int | float) else None


def _why_unguided(call: _Call, configs: FolderConfigs) -> str | None:
    """Why a call evaluates one branch only, or None."""
    facts = call.facts
    unmarked = facts.source and not any(mark in facts.source for mark in _GUIDANCE_MARKS)
    single = unmarked and not _THRESHOLD.search(facts.source)
    if (facts.stacked == 1 and single) or facts.threshold == math.inf:
        return f"{facts.name} shows no classifier-free guidance (its model is distilled, or another pipeline does the work)"
    if "true_cfg_scale" in facts.parameters:
        scale = call.scale("true_cfg_scale")
        if scale is not None and scale <= 1:
            return f"true_cfg_scale is {scale:g} (guidance_scale only feeds the distilled embedding of {facts.name})"
        if call.value("negative_prompt") is None and call.value("negative_prompt_embeds") is None:
            return f"{facts.name} is given no negative prompt, so true_cfg_scale has no effect"
        return None
    name = _scale_name(facts)
    scale = call.scale(name)
    if scale is not None and scale <= facts.threshold:
        return f"{name} is {scale:g}"
    picture_scale = call.scale("image_guidance_scale")
    if picture_scale is not None and picture_scale < 1:
        return f"image_guidance_scale is {picture_scale:g}"
    if configs.pipeline.get("is_distilled"):
        return "the model is distilled (is_distilled in model_index.json)"
    if any(config.get("time_cond_proj_dim") for config in configs.denoisers.values()):
        return "the model is distilled (time_cond_proj_dim in its config)"
    return None


def _why_unsupported(facts: _Facts) -> str | None:
    """What keeps a guided call from being split, as the predicate of a sentence, or None."""
    if not facts.source:
        return "comes without source, so that nothing is known of its calls"
    hindrance = next((why for prefix, why in _HINDRANCES.items() if facts.name.startswith(prefix)), None)
    if hindrance:
        return hindrance
    if "_perturbed_attention_guidance" in facts.source:
        return "perturbs the attention of stacked branches inside of one call"
    calls = len(_DENOISER_CALL.findall(facts.source))
    if calls and (facts.stacked > 1 or _NAMED_SECOND_CALL in facts.source):
        return None
    if calls == 2 and "truncation" not in facts.source:
        return None
    return "evaluates guidance in a way that Frazil does not know"


def _source(function: Any) -> str:
    """The source of a function, without comments and docstring, in one form. Empty when there is none."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ""
    body = tree.body[0]
    if isinstance(body, ast.FunctionDef) and ast.get_docstring(body) is not None:
        body.body = body.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _threshold(pipeline_class: type) -> float:
    own = inspect.getattr_static(pipeline_class, "do_classifier_free_guidance", None)
    source = _source(own.fget) if isinstance(own, property) else ""
    found = _THRESHOLD.search(source)
    if found is None and source.endswith("return False"):
        return math.inf
    return float(found.group(1)) if found else 1.0
