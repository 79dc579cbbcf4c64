"""What a model says that it is, and whether that can be loaded: told by model_index.json and the names of its files.

These checks need no file but the index, so a model of a store or of the hub is refused before it is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs import classes
from frazil_jobs.inputs.rows import nearest
from frazil_jobs.inputs.weights import PICKLES, SAFETENSORS, is_weights, variant_of

INDEX_FILE = "model_index.json"
FIELD = "spec.model.uri"
PICKLE_FIELD = "spec.model.allowPickle"
CODE_FIELD = "spec.model.allowRemoteCode"
_LIBRARIES = frozenset({"diffusers", "transformers"})
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json", "config.json")

Component = tuple[str, str]
"""Library ("diffusers", "transformers" or a folder of diffusers.pipelines) and class."""


@dataclass(frozen=True)
class Allowed:
    """What the spec, within the administrator's limits, allows of a model."""

    variant: str | None = None
    pipeline: str | None = None
    """The diffusers class to load the folder with, in place of the one that it names."""
    pickle: bool = False
    remote_code: bool = False
    without_weights: frozenset[str] = frozenset()
    """Components that are not loaded, or from their configuration alone."""


@dataclass(frozen=True)
class Index:
    """model_index.json: what the folder says that it is."""

    pipeline: str | None
    """The class it names; None for code of its own."""
    components: dict[str, Component]
    custom: str | None = None
    """The Python module of a custom pipeline."""


def read_index(value: Any, where: str) -> Index:
    """What model_index.json says. Raises BadConfiguration when it is no such file."""
    if not isinstance(value, Mapping) or "_class_name" not in value:
        raise wrong(
            f"{INDEX_FILE} of {where} names no pipeline class", "it must be one that diffusers' save_pretrained wrote"
        )
    components = {
        name: (str(entry[0]), str(entry[1]))
        for name, entry in value.items()
        if not name.startswith("_") and isinstance(entry, list) and len(entry) == 2 and entry[0] and entry[1]
    }
    for name in components:
        if not name.isidentifier():
            raise wrong(
                f"{INDEX_FILE} of {where} has a component called {name!r}", "it must be one that save_pretrained wrote"
            )
    named = value["_class_name"]
    if isinstance(named, list) and len(named) == 2:
        return Index(pipeline=None, components=components, custom=str(named[0]))
    return Index(pipeline=str(named), components=components)


def check_index(index: Index, allowed: Allowed, *, where: str) -> str:
    """The pipeline class to use, once it's sure that all classes named exist here. Raises BadConfiguration."""
    known = classes.installed()
    if index.custom and not allowed.remote_code:
        raise remote_code(f"the pipeline of {where} is Python code of its own ({index.custom}.py)")
    if allowed.pipeline is not None:
        classes.require_pipeline(allowed.pipeline, field="spec.model.pipeline")
    elif index.pipeline is not None:
        classes.require_pipeline(index.pipeline, field=FIELD)
    for name, (library, class_name) in index.components.items():
        if known is None:
            continue
        if library not in _LIBRARIES | known.modules:
            if not allowed.remote_code:
                raise remote_code(f"component {name} of {where} is Python code of its own ({name}/{library}.py)")
        elif library == "diffusers" and class_name not in known.all:
            hint = nearest(class_name, sorted(known.all)) or "a newer diffusers may have it"
            raise wrong(f"the installed diffusers has no {class_name!r}, which {where} needs for its {name}", hint)
    return allowed.pipeline or index.pipeline or "DiffusionPipeline"


def check_names(index: Index, names: Iterable[str], allowed: Allowed, *, where: str) -> None:
    """Check, by the names of its files alone, that every component is there in a form that may be loaded."""
    inside: dict[str, list[str]] = {}
    for name in names:
        folder, _, rest = name.partition("/")
        inside.setdefault(folder if rest else "", []).append(rest or folder)
    flat = "config.json" in inside.get("", ())
    variants: set[str | None] = set()
    for name, component in index.components.items():
        files = inside.get(name, [])
        if not files:
            if flat:
                continue
            raise wrong(f"{where} has no folder {name!r}, which its {INDEX_FILE} names", "copy or download it again")
        _check_component(name, component, files, allowed, where=where)
        variants |= {variant_of(file) for file in files if is_weights(file)}
    if allowed.variant is not None and variants and allowed.variant not in variants:
        there = ", ".join(sorted(str(variant) for variant in variants if variant)) or "none"
        raise BadConfiguration(
            f"{where} has no weights of the variant {allowed.variant!r}",
            field="spec.model.variant",
            remedy=f"variants there: {there}; leave it out for the plain weights",
        )


def _check_component(name: str, component: Component, files: list[str], allowed: Allowed, *, where: str) -> None:
    wanted, has_weights = _expected(component)
    if wanted and not any(file in files for file in wanted):
        raise wrong(f"{where} has no {name}/{wanted[0]}", "copy or download it again")
    weights = [file for file in files if is_weights(file) and "/" not in file]
    safe = [file for file in weights if file.endswith(SAFETENSORS)]
    pickles = [file for file in weights if Path(file).suffix in PICKLES]
    if name in allowed.without_weights or (not has_weights and not pickles):
        return
    if pickles and not safe and not allowed.pickle:
        raise BadConfiguration(
            f"{name} of {where} has only pickled weights ({pickles[0]}), which can run code when they are loaded",
            field=PICKLE_FIELD,
            remedy="convert them to safetensors, or set allowPickle: true if you trust their author",
        )
    if not weights:
        raise wrong(f"{name} of {where} has no weights", "copy or download it again")
    usable = {variant_of(file) for file in (safe or pickles)}
    if None not in usable and allowed.variant not in usable:
        there = ", ".join(sorted(str(variant) for variant in usable))
        raise BadConfiguration(
            f"{name} of {where} has weights only as a variant",
            field="spec.model.variant",
            remedy=f"choose one of: {there}",
        )


def _expected(component: Component) -> tuple[tuple[str, ...], bool]:
    """The files of which one must be in a component's folder, and whether it must have weights."""
    library, class_name = component
    known = classes.installed()
    if "Scheduler" in class_name:
        return ("scheduler_config.json",), False
    if library == "transformers":
        if "Tokenizer" in class_name:
            return _TOKENIZER_FILES, False
        if any(word in class_name for word in ("Processor", "FeatureExtractor")):
            return _PROCESSOR_FILES, False
        return ("config.json",), True
    if library == "diffusers" and known is not None and class_name in known.models:
        return ("config.json",), True
    return (), False


def wrong(message: str, remedy: str) -> BadConfiguration:
    """The error for a model that is not what it should be."""
    return BadConfiguration(message, field=FIELD, remedy=remedy)


def remote_code(message: str) -> BadConfiguration:
    """The error for a model that brings code."""
    return BadConfiguration(
        message, field=CODE_FIELD, remedy="set allowRemoteCode: true if you have read it and trust it"
    )
