"""The model that a TrainingJob begins from: a pipeline folder of diffusers, or a folder of transformers.

A model that is trained from random weights needs its configuration only; a diffusion transformer's pipeline folder needs the
weights of all its other parts.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from frazil_jobs.api.trainingjob import TrainingJobSpec
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs import cache
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.bucket import bucket_source
from frazil_jobs.inputs.cache import Source
from frazil_jobs.inputs.index import CODE_FIELD, FIELD, INDEX_FILE, wrong
from frazil_jobs.inputs.locations import Hub, Local
from frazil_jobs.inputs.models import hub_source, refuse_revision, resolve_model
from frazil_jobs.inputs.progress import Report, quiet
from frazil_jobs.inputs.weights import PLAIN, SAFETENSORS, check_safetensors, variant_of

TRANSFORMER: Final = "transformer"
"""The component of a pipeline folder that is trained."""
CONFIG: Final = "config.json"


@dataclass(frozen=True)
class TrainingModel:
    """A folder that was checked."""

    path: Path
    fingerprint: str
    size: int
    """Bytes that are needed."""


def resolve_training_model(
    spec: TrainingJobSpec, *, base_dir: Path, access: Access, report: Report = quiet
) -> TrainingModel:
    """The model of a TrainingJob as a checked folder. Raises BadConfiguration (78), TryAgain (75)."""
    pretrained = spec.initial_weights == "Pretrained"
    if spec.task == "DiffusionTransformer":
        untrained = frozenset() if pretrained else frozenset({TRANSFORMER})
        found = resolve_model(spec.model, base_dir=base_dir, access=access, report=report, without_weights=untrained)
        return TrainingModel(found.path, found.fingerprint, found.size)
    where = access.locate(spec.model.uri, base_dir=base_dir, field=FIELD)
    if isinstance(where, Local):
        return check_transformers(where.path, weights=pretrained, variant=spec.model.variant)
    wanted = ("transformers", spec.model.variant or "", "" if pretrained else "config")
    source: Source | None
    if isinstance(where, Hub):
        source, key = hub_source(where, spec.model.revision, access, wanted=wanted)
    else:
        refuse_revision(spec.model.revision, "spec.model.revision")
        source = bucket_source(where, access=access, field=FIELD)
        key = cache.key_of("s3", where.bucket, where.key, source.identity, *wanted)
    folder = cache.find(access.cache, key)
    if folder is None:
        assert source is not None, "without a source, the cache was found complete"
        names = _needed([file.name for file in source.files], source.label, pretrained, spec.model.variant)
        _check_config(_config_of(source), source.label)
        folder = cache.ensure(access.cache, key, source.only(names), report=report)
    return check_transformers(folder, weights=pretrained, variant=spec.model.variant)


def check_transformers(path: Path, *, weights: bool, variant: str | None = None) -> TrainingModel:
    """Check a folder in transformers' format. Raises BadConfiguration."""
    if not path.is_dir():
        raise wrong(f"there is no model folder {path}", "a model of the hub is written hf://owner/name")
    names = _needed(sorted(file.name for file in path.iterdir() if file.is_file()), str(path), weights, variant)
    try:
        _check_config(json.loads((path / CONFIG).read_bytes()), str(path))
    except ValueError:
        raise wrong(f"{path / CONFIG} is not JSON", "copy or download it again") from None
    digest, total = hashlib.sha256(), 0
    for name in names:
        file = path / name
        size = file.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        if name.endswith(SAFETENSORS):
            digest.update(check_safetensors(file, field=FIELD))
            with file.open("rb") as raw:
                raw.seek(max(0, size - (1 << 16)))
                digest.update(raw.read())
        else:
            digest.update(file.read_bytes())
        total += size
    return TrainingModel(path, digest.hexdigest(), total)


def _needed(names: Sequence[str], where: str, weights: bool, variant: str | None) -> list[str]:
    """Configurations, tokenizer and, where they are wanted, weights: of the files at the top of the folder."""
    top = [name for name in names if "/" not in name and not name.startswith(".")]
    if INDEX_FILE in top:
        raise BadConfiguration(
            f"{where} is a pipeline of diffusers", field="spec.task", remedy="use task DiffusionTransformer for it"
        )
    if CONFIG not in top:
        raise wrong(f"{where} has no {CONFIG}", "name a folder in transformers' format")
    plain = [name for name in top if PurePosixPath(name).suffix in PLAIN]
    if not weights:
        return [name for name in plain if ".index." not in name]
    safe = [name for name in top if name.endswith(SAFETENSORS) and variant_of(name) == variant]
    if not safe:
        raise wrong(
            f"{where} has no safetensors weights" + (f" of the variant {variant!r}" if variant else ""),
            "store them as safetensors (save_pretrained), or begin from initialWeights: Random",
        )
    return sorted([*plain, *safe])


def _config_of(source: Source) -> Any:
    file = source.named(CONFIG)
    assert file is not None, "checked by its name"
    with tempfile.TemporaryDirectory(prefix="frazil-model-") as scratch:
        try:
            return json.loads(source.download(file, Path(scratch)).read_bytes())
        except ValueError:
            raise wrong(f"{CONFIG} of {source.label} is not JSON", "copy or download it again") from None


def _check_config(config: Any, where: str) -> None:
    if not isinstance(config, dict) or "model_type" not in config:
        raise wrong(f"{CONFIG} of {where} has no model_type", "name a folder in transformers' format")
    if config.get("auto_map"):
        raise BadConfiguration(
            f"{CONFIG} of {where} asks for Python code of its own", field=CODE_FIELD,
            remedy="use a model whose classes transformers has",
        )  # fmt: skip
