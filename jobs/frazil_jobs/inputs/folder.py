"""A model folder in diffusers' own format, checked before any weights are loaded and without importing torch.

What is refused here would otherwise fail minutes later on every rank, or run code that nobody allowed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frazil_jobs.inputs.index import (
    FIELD,
    INDEX_FILE,
    Allowed,
    Component,
    check_index,
    check_names,
    read_index,
    remote_code,
    wrong,
)
from frazil_jobs.inputs.rows import nearest
from frazil_jobs.inputs.weights import SAFETENSORS, check_safetensors, needed

_MAX_CONFIG_BYTES = 64 << 20
_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True)
class ModelFolder:
    """A folder that was checked: `path` can be given to `DiffusionPipeline.from_pretrained`."""

    path: Path
    pipeline: str
    components: dict[str, Component]
    fingerprint: str
    """A sha256 over names and sizes of all files, all of small ones, and header and three samples of large ones:
    another training run of the same model has another one."""
    size: int
    """Bytes of the files that are needed."""


def check_folder(path: Path, allowed: Allowed) -> ModelFolder:
    """Check the model folder at `path`. Raises BadConfiguration that names what is wrong and the way out."""
    _require_folder(path)
    index = read_index(_read_json(path / INDEX_FILE), str(path))
    names = sorted(_files_below(path))
    pipeline = check_index(index, allowed, where=str(path))
    check_names(index, names, allowed, where=str(path))
    chosen = needed(
        names,
        components=list(index.components),
        variant=allowed.variant,
        allow_pickle=allowed.pickle,
        allow_remote_code=allowed.remote_code,
    )
    for name in index.components:
        _check_shards(path, name, chosen)
        _check_auto_map(path, name, allowed)
    digest = hashlib.sha256()
    total = 0
    for name in chosen:
        file = path / name
        if name.endswith(SAFETENSORS):
            check_safetensors(file, field=FIELD)
        size = file.stat().st_size
        total += size
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        digest.update(_sample(file, size))
    return ModelFolder(
        path=path, pipeline=pipeline, components=index.components, fingerprint=digest.hexdigest(), size=total
    )


def _check_shards(path: Path, component: str, chosen: Iterable[str]) -> None:
    """Every file that an index of split weights names must be there."""
    there = set(chosen)
    for name in there:
        if name.startswith(f"{component}/") and ".index." in name and name.endswith(".json"):
            folder = name.rpartition("/")[0]
            index = _read_json(path / name)
            weights = index.get("weight_map") if isinstance(index, Mapping) else None
            if not isinstance(weights, Mapping):
                raise wrong(f"{path / name} is no index of weights", "copy or download it again")
            for shard in sorted({str(value) for value in weights.values()}):
                if f"{folder}/{shard}" not in there:
                    raise wrong(f"{path / folder} has no {shard!r}, which {name} names", "copy or download it again")


def _check_auto_map(path: Path, component: str, allowed: Allowed) -> None:
    """Refuse Python code that a component's configuration brings with it."""
    if allowed.remote_code:
        return
    for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        config = path / component / file
        mapping = _read_json(config).get("auto_map") if config.is_file() else None
        for target in _targets(mapping):
            module = target.partition("--")[2] or target
            if "--" in target or (path / component / f"{module.split('.')[0]}.py").is_file():
                raise remote_code(f"{component}/{file} of {path} asks for Python code of its own ({target})")


def _targets(mapping: Any) -> list[str]:
    if not isinstance(mapping, Mapping):
        return []
    values = [item for value in mapping.values() for item in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, str)]


def _require_folder(path: Path) -> None:
    if path.is_file():
        raise wrong(
            f"{path} is one file, not a folder in diffusers' format",
            "convert it once: DiffusionPipeline.from_single_file(…).save_pretrained(folder)",
        )
    if not path.is_dir():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) or "a model of the hub is written hf://owner/name"
        raise wrong(f"there is no model folder {path}", hint)
    if not (path / INDEX_FILE).is_file():
        below = sorted(str(found.parent.relative_to(path)) for found in path.glob(f"*/{INDEX_FILE}"))
        hint = (
            f"did you mean its folder {below[0]!r}?"
            if below
            else "it must be one that diffusers' save_pretrained wrote"
        )
        raise wrong(f"{path} has no {INDEX_FILE}", hint)


def _files_below(path: Path) -> Iterable[str]:
    """Relative names of all files, hidden ones left out. Links to files are files (the hub's cache is made of them)."""
    for folder, inner, files in os.walk(path):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for file in files:
            if not file.startswith("."):
                yield (Path(folder) / file).relative_to(path).as_posix()


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise wrong(f"{path} is too large for a configuration", "copy or download it again")
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise wrong(f"{path} is not JSON", "copy or download it again") from None
    except OSError as error:
        raise wrong(f"{path} can't be read: {error.strerror}", "check its owner and permissions") from None
    if not isinstance(value, dict):
        raise wrong(f"{path} is no JSON object", "copy or download it again")
    return value


def _sample(path: Path, size: int) -> bytes:
    """All of a small file; of a large one the start (a safetensors header is there), the middle and the end."""
    with path.open("rb") as file:
        if size <= 16 * _SAMPLE_BYTES:
            return hashlib.sha256(file.read()).digest()
        digest = hashlib.sha256()
        for position in (0, size // 2, size - _SAMPLE_BYTES):
            file.seek(position)
            digest.update(file.read(_SAMPLE_BYTES))
        return digest.digest()
