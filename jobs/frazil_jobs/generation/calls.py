"""The keyword arguments of a pipeline call, from the job's fields and the pipeline's own signature.

A pipeline gets only arguments that it has. What a job asks for and the pipeline can't take is an error that names the
field, found from the class, before any weights are loaded. Nothing is dropped in silence.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from frazil_jobs.api.generationjob import Sampling
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.generation.batches import Item
from frazil_jobs.generation.media import Kind, kind_of
from frazil_jobs.inputs.rows import RESERVED_ARGUMENTS, PromptRow

FIELD_OF: Final[Mapping[str, str]] = {
    "prompt": "spec.prompts",
    "negative_prompt": "spec.sampling.negativePrompt",
    "num_inference_steps": "spec.sampling.steps",
    "guidance_scale": "spec.sampling.guidanceScale",
    "height": "spec.sampling.height",
    "width": "spec.sampling.width",
    "num_frames": "spec.sampling.frames",
    "video_length": "spec.sampling.frames",
    "frame_rate": "spec.sampling.framesPerSecond",
    "fps": "spec.sampling.framesPerSecond",
    "num_images_per_prompt": "spec.imagesPerPrompt",
    "num_videos_per_prompt": "spec.imagesPerPrompt",
    "num_waveforms_per_prompt": "spec.imagesPerPrompt",
    "generator": "spec.sampling.seed",
}
"""Arguments that have a field of their own, so that they may not come through `extra`."""

DEFAULT_FRAMES_PER_SECOND: Final = 16


@dataclass(frozen=True, kw_only=True)
class CallPlan:
    """How a pipeline is called for this job."""

    pipeline: str
    kind: Kind
    parameters: Mapping[str, inspect.Parameter]
    common: Mapping[str, Any]
    """Arguments that are the same for all rows."""
    negative_prompt: str | None
    frames_per_second: int

    @property
    def takes_prompts(self) -> bool:
        """False for pipelines that start from a picture alone; they make one output a call."""
        return "prompt" in self.parameters

    def check_row(self, row: PromptRow, *, prompt_index: int) -> None:
        """Raise BadInput for a row that this pipeline can't take."""
        where = f"prompt {prompt_index}"
        if row.prompt and not self.takes_prompts:
            raise BadInput(f"{self.pipeline} takes no prompt", field=where, remedy="leave the row's prompt empty")
        if row.negative_prompt is not None and "negative_prompt" not in self.parameters:
            raise BadInput(f"{self.pipeline} takes no negative prompt", field=where)
        for group, names in (("images", row.images), ("extra", row.extra)):
            for name in names:
                if name not in self.parameters or name in RESERVED_ARGUMENTS or name in FIELD_OF:
                    raise BadInput(
                        f"{self.pipeline} has no argument {name!r}{nearest(name, self.parameters)}",
                        field=f"{where}, {group}.{name}",
                    )

    def arguments(self, items: Sequence[Item], *, pictures: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the call that makes `items`; generators and the output type are the loop's.

        Prompts are lists, one entry an item. `pictures` are this batch's, loaded; one serves the whole batch.
        """
        row, size = items[0].row, len(items)
        extra = {name: fitted(self.parameters[name], value) for name, value in row.extra.items()}
        found = {name: per_item(name, value, size=size) for name, value in {**self.common, **extra}.items()}
        found |= pictures
        if self.takes_prompts:
            found["prompt"] = [item.row.prompt for item in items]
        if row.negative_prompt is not None:
            found["negative_prompt"] = [item.row.negative_prompt for item in items]
        elif self.negative_prompt is not None:
            found["negative_prompt"] = [self.negative_prompt] * size
        return found


def per_item(name: str, value: Any, *, size: int) -> Any:
    """A second prompt ("prompt_2") is a list, as the first one is."""
    is_prompt = name.startswith(("prompt_", "negative_prompt_"))
    return [value] * size if is_prompt and isinstance(value, str) else value


def plan_call(pipeline_class: type, sampling: Sampling) -> CallPlan:
    """Map the job's sampling fields to the arguments of `pipeline_class`. Raises BadConfiguration naming the field."""
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(pipeline_class.__call__).parameters.items()
        if name != "self" and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    kind = kind_of(pipeline_class)
    pipeline = pipeline_class.__name__
    common: dict[str, Any] = {}
    wanted: dict[str, Any] = {
        "num_inference_steps": sampling.steps,
        "guidance_scale": None if sampling.guidance_scale is None else float(sampling.guidance_scale),
        "height": sampling.height,
        "width": sampling.width,
    }
    for name, value in wanted.items():
        if value is None:
            continue
        if name not in parameters:
            raise BadConfiguration(f"{pipeline} has no argument {name}", field=FIELD_OF[name], remedy="leave it out")
        common[name] = value
    common |= _length(pipeline, parameters, kind, sampling)
    if sampling.negative_prompt is not None and "negative_prompt" not in parameters:
        raise BadConfiguration(
            f"{pipeline} takes no negative prompt", field=FIELD_OF["negative_prompt"], remedy="leave it out"
        )
    for name, value in sampling.extra.items():
        check_extra(name, parameters, pipeline=pipeline)
        common[name] = fitted(parameters[name], value)
    return CallPlan(
        pipeline=pipeline,
        kind=kind,
        parameters=parameters,
        common=common,
        negative_prompt=sampling.negative_prompt,
        frames_per_second=_frames_per_second(parameters, sampling),
    )


def check_extra(name: str, parameters: Mapping[str, Any], *, pipeline: str) -> None:
    """Raise BadConfiguration for a name in `spec.sampling.extra` that has a field of its own, or that isn't known."""
    field = f"spec.sampling.extra.{name}"
    if name in FIELD_OF:
        raise BadConfiguration("has a field of its own", field=field, remedy=f"set {FIELD_OF[name]}")
    if name in RESERVED_ARGUMENTS:
        raise BadConfiguration("is set by Frazil itself", field=field, remedy="leave it out")
    if name not in parameters:
        raise BadConfiguration(f"{pipeline} has no argument {name!r}{nearest(name, parameters)}", field=field)


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """`; did you mean 'guidance_rescale'?` when a name is near, else the names there are."""
    free = sorted(set(known) - RESERVED_ARGUMENTS - set(FIELD_OF))
    close = difflib.get_close_matches(name, free, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(free)}"


def fitted(parameter: inspect.Parameter, value: Any) -> Any:
    """`value` as the argument wants it: YAML has no tuples, and some pipelines add them up."""
    annotation = str(parameter.annotation).lower()
    takes_tuple = "tuple" in annotation and "list" not in annotation
    return tuple(value) if isinstance(value, list) and (takes_tuple or isinstance(parameter.default, tuple)) else value


def _length(
    pipeline: str, parameters: Mapping[str, inspect.Parameter], kind: Kind, sampling: Sampling
) -> dict[str, Any]:
    """Frames and frames a second: of a video as such, of sound as its seconds."""
    found: dict[str, Any] = {}
    rate = next((name for name in ("frame_rate", "fps") if name in parameters), None)
    if sampling.frames_per_second is not None:
        if kind is Kind.PICTURE:
            raise BadConfiguration(
                f"{pipeline} makes pictures", field="spec.sampling.framesPerSecond", remedy="leave it out"
            )
        if rate is not None:
            found[rate] = sampling.frames_per_second
    if sampling.frames is None:
        return found
    if name := next((name for name in ("num_frames", "video_length") if name in parameters), None):
        return {**found, name: sampling.frames}
    if name := next((name for name in ("audio_end_in_s", "audio_length_in_s") if name in parameters), None):
        if sampling.frames_per_second is None:
            raise BadConfiguration(
                "the length of a sound needs frames a second",
                field="spec.sampling.framesPerSecond",
                remedy=f"set it, or give the seconds as spec.sampling.extra.{name} instead of frames",
            )
        return {**found, name: sampling.frames / sampling.frames_per_second}
    raise BadConfiguration(f"{pipeline} makes no frames", field="spec.sampling.frames", remedy="leave it out")


def _frames_per_second(parameters: Mapping[str, inspect.Parameter], sampling: Sampling) -> int:
    if sampling.frames_per_second is not None:
        return sampling.frames_per_second
    for name in ("frame_rate", "fps"):
        default = parameters[name].default if name in parameters else None
        if isinstance(default, int | float):
            return round(default)
    return DEFAULT_FRAMES_PER_SECOND
