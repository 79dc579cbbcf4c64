"""A pipeline from a folder in diffusers' own format. What can be told from the folder's small files is told before any
weights are read: the class and the scheduler. (That the weights are there and are safetensors `inputs.folder` checked.)
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import diffusers
import numpy as np
import torch

from frazil_jobs.api.common import Model
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.guidance import DENOISERS
from frazil_jobs.generation.stages.units import structure_of
from frazil_jobs.inputs.task import LoraFile

SCHEDULER_FIELD: Final = "spec.sampling.scheduler"
MODEL_FIELD: Final = "spec.model.uri"
_SCHEDULERS_APART: Final = ("EDMEulerScheduler",)
"""Listed by diffusers as interchangeable, but for models trained with EDM's preconditioning only."""
_COGVIDEOX: Final = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
_OWN_SIGMAS: Final = re.compile(r"sigmas = (?:\(\s*)?np\.linspace")
_VERSION: Final = diffusers.__version__
_ALSO_FOR_BETAS: Final = ("LCMScheduler", "TCDScheduler", "SASolverScheduler")
_FLOW_SCHEDULERS: Final = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
)


@dataclass(frozen=True)
class Folder:
    """A model folder's small files."""

    path: Path
    index: Mapping[str, Any]
    """model_index.json."""

    @classmethod
    def read(cls, path: Path) -> Folder:
        """Read model_index.json. Raises BadConfiguration when the folder isn't a pipeline's."""
        try:
            index = json.loads((path / "model_index.json").read_text())
        except (OSError, ValueError) as error:
            raise BadConfiguration(
                f"{path} is no pipeline folder: its model_index.json can't be read ({error})",
                field=MODEL_FIELD,
                remedy="name a folder in diffusers' format",
            ) from None
        return cls(path, index)

    def components(self) -> dict[str, tuple[str, str]]:
        """Component name to (library, class), without those that are left out."""
        entries = {name: value for name, value in self.index.items() if isinstance(value, list) and len(value) == 2}
        return {name: (str(library), str(kind)) for name, (library, kind) in entries.items() if library and kind}

    def config(self, component: str, file: str = "config.json") -> dict[str, Any]:
        """A component's configuration; empty when it has none."""
        try:
            found: dict[str, Any] = json.loads((self.path / component / file).read_text())
        except FileNotFoundError:
            return {}
        return found


def pipeline_class(name: str) -> type:
    """The diffusers class `name`. Raises BadConfiguration."""
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise BadConfiguration(
            f"diffusers {diffusers.__version__} has no pipeline {name!r}",
            field="spec.model.pipeline",
            remedy="name a pipeline class of diffusers",
        )
    return found


def denoisers_of(folder: Folder) -> list[torch.nn.Module]:
    """The folder's denoisers, without weights. One of another library, or of a class that refuses its values, is left out:
    what is wrong with it shows when it's loaded.
    """
    found = []
    for name in DENOISERS:
        library, kind = folder.components().get(name, ("", ""))
        if library == "diffusers" and hasattr(diffusers, kind):
            with suppress(ValueError, TypeError, KeyError, RuntimeError, ImportError, AttributeError):
                found.append(structure_of(getattr(diffusers, kind), folder.config(name)))
    return found


def scheduler_class(folder: Folder, name: str | None, pipeline: type | None = None) -> type | None:
    """The class that replaces the folder's scheduler, or None. Raises BadConfiguration naming those of use.

    With the pipeline's class, the way it sets its time steps is tried too (in milliseconds, without weights).
    """
    if name is None:
        return None
    entry = folder.components().get("scheduler")
    if entry is None:
        raise BadConfiguration("this model has no scheduler to replace", field=SCHEDULER_FIELD, remedy="leave it out")
    own, config = entry[1], folder.config("scheduler", "scheduler_config.json")
    found = getattr(diffusers, name, None)
    if name not in schedulers_like(own, config) or (pipeline and not sets_timesteps(pipeline, own, config, found)):
        what = "can't be used with this model" if _importable(name) else f"is no scheduler of diffusers {_VERSION}"
        usable = usable_schedulers(own, config, pipeline)
        raise BadConfiguration(
            f"{name} {what}, whose own is {own}", field=SCHEDULER_FIELD, remedy=f"use {', '.join(usable)}"
        )
    return found


def usable_schedulers(own: str, config: Mapping[str, Any], pipeline: type | None = None) -> list[str]:
    """Names of the schedulers that can take the place of `own`, sorted."""
    names = schedulers_like(own, config)
    if pipeline is None:
        return names
    return [name for name in names if name == own or sets_timesteps(pipeline, own, config, getattr(diffusers, name))]


def schedulers_like(own: str, config: Mapping[str, Any]) -> list[str]:
    """Names of the schedulers of `own`'s family.

    Diffusers lists those for models with a table of betas. Models trained with flow matching take the FlowMatch
    schedulers and those that can walk flow sigmas; nothing takes both.
    """
    listed = list(getattr(getattr(diffusers, own, None), "_compatibles", []))
    if is_flow(own, config):
        names = [*_FLOW_SCHEDULERS, *_with_flow_sigmas(listed)]
    else:
        names = [*listed, *(_ALSO_FOR_BETAS if listed else ())]
    family = _COGVIDEOX if own in _COGVIDEOX else ()
    found = {*names, *family} - set(_SCHEDULERS_APART)
    return sorted(name for name in {own, *found} if _importable(name))


def sets_timesteps(pipeline: type, own: str, config: Mapping[str, Any], kind: Any) -> bool:
    """Whether `kind` takes its time steps in the way in which `pipeline` hands them over.

    Some pipelines (Flux, LTX) always pass sigmas of their own, or the shift for the picture's size (`mu`).
    """
    source = inspect.getsource(inspect.unwrap(pipeline.__call__))
    names = set(inspect.signature(kind.set_timesteps).parameters)
    try:
        scheduler = scheduler_of(kind, own, config)
        own_sigmas = _OWN_SIGMAS.search(source) is not None
        if own_sigmas and "use_flow_sigmas" in source and scheduler.config.get("use_flow_sigmas"):
            own_sigmas = False
        if own_sigmas and "sigmas" not in names:
            return False
        steps: dict[str, Any] = {"sigmas": np.linspace(1.0, 0.25, 4)} if own_sigmas else {"num_inference_steps": 4}
        scheduler.set_timesteps(device="cpu", **steps, **({"mu": 0.5} if "mu=mu" in source else {}))
    except (ValueError, TypeError, AssertionError, NotImplementedError, ImportError, AttributeError, IndexError):
        return False
    return True


def is_flow(name: str, config: Mapping[str, Any]) -> bool:
    """True for a scheduler of a flow-matching model."""
    return name.startswith("FlowMatch") or bool(config.get("use_flow_sigmas"))


def _with_flow_sigmas(listed: Sequence[str]) -> list[str]:
    karras = listed or [member.name for member in diffusers.schedulers.scheduling_utils.KarrasDiffusionSchedulers]
    return [name for name in karras if _importable(name) and "use_flow_sigmas" in _arguments(getattr(diffusers, name))]


def _arguments(kind: Any) -> set[str]:
    names: set[str] = set(kind._get_init_keys(kind))
    return names


def _importable(name: str) -> bool:
    """False for a class that stands in for one whose library isn't installed (torchsde)."""
    found = getattr(diffusers, name, None)
    return isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)


def scheduler_of(kind: Any, own: str, config: Mapping[str, Any]) -> Any:
    """A scheduler of class `kind` with the values of the model's own: the two families name the shift differently."""
    changes: dict[str, Any] = {}
    if is_flow(own, config) and "use_flow_sigmas" in _arguments(kind):
        shift = config.get("flow_shift", config.get("shift", 1.0))
        changes = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    elif kind.__name__.startswith("FlowMatch") and "flow_shift" in config:
        changes = {"shift": config["flow_shift"]}
    return kind.from_config(dict(config), **changes)


def replace_scheduler(pipe: Any, kind: type) -> None:
    """Give the pipeline another scheduler with its own one's values. Raises BadConfiguration."""
    try:
        pipe.scheduler = scheduler_of(kind, type(pipe.scheduler).__name__, pipe.scheduler.config)
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise BadConfiguration(
            f"{kind.__name__} refuses this model's values: {error}", field=SCHEDULER_FIELD
        ) from error


def dtype_of(model: Model, device: torch.device) -> torch.dtype:
    """The arithmetic that the spec asks for. Auto: float32 on the CPU, bfloat16 on a GPU."""
    if model.dtype == "Auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[model.dtype]


def load_pipeline(
    folder: Folder,
    kind: type,
    model: Model,
    *,
    device: torch.device,
    scheduler: type | None,
    loras: Sequence[LoraFile] = (),
) -> Any:
    """The pipeline, on `device`, in evaluation mode. Reads nothing outside the folder. Raises BadConfiguration."""
    safetensors = None if model.allow_pickle else True  # None: safetensors where there are any
    try:
        pipe = kind.from_pretrained(  # type: ignore[attr-defined]
            folder.path,
            dtype=dtype_of(model, device),
            variant=model.variant,
            use_safetensors=safetensors,
            local_files_only=True,
            trust_remote_code=model.allow_remote_code,
        )
    except (OSError, ValueError, TypeError, KeyError, ImportError, AttributeError) as error:
        raise BadConfiguration(
            f"{kind.__name__} can't be loaded from {folder.path}: {error}",
            field="spec.model.pipeline" if model.pipeline else MODEL_FIELD,
        ) from error
    if scheduler is not None:
        replace_scheduler(pipe, scheduler)
    load_loras(pipe, loras)
    return pipe.to(device)


def load_loras(pipe: Any, loras: Sequence[LoraFile]) -> None:
    """Add the LoRAs, each with its scale. Raises BadConfiguration naming the one that doesn't fit."""
    if loras and not hasattr(pipe, "load_lora_weights"):
        raise BadConfiguration(f"{type(pipe).__name__} takes no LoRA", field="spec.model.lora", remedy="leave it out")
    for number, lora in enumerate(loras):
        try:
            pipe.load_lora_weights(
                lora.path.parent,
                weight_name=lora.path.name,
                adapter_name=lora.name,
                local_files_only=True,
                use_safetensors=True,
            )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError) as error:
            raise BadConfiguration(
                f"{lora.path.name} doesn't fit {type(pipe).__name__}: {error}", field=f"spec.model.lora[{number}]"
            ) from error
    if loras:
        pipe.set_adapters([lora.name for lora in loras], [lora.scale for lora in loras])
