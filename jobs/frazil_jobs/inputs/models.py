"""Models and LoRA files: found, refused or fetched, and handed on as checked folders and files on this machine.

Names are checked before anything is downloaded, the folder once it's there, and both without importing torch.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Literal

from frazil_jobs.api.common import Lora, Model
from frazil_jobs.base.exits import BadConfiguration, TryAgain
from frazil_jobs.base.files import write_atomically
from frazil_jobs.base.log import get_logger
from frazil_jobs.inputs import cache
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.bucket import bucket_source
from frazil_jobs.inputs.cache import Source
from frazil_jobs.inputs.folder import ModelFolder, check_folder
from frazil_jobs.inputs.hub import HubOffline, HubReader
from frazil_jobs.inputs.index import FIELD, INDEX_FILE, Allowed, check_index, check_names, read_index
from frazil_jobs.inputs.locations import Bucket, Hub, Local, clean_path
from frazil_jobs.inputs.progress import Report, quiet
from frazil_jobs.inputs.rows import nearest
from frazil_jobs.inputs.task import LoraFile
from frazil_jobs.inputs.weights import PICKLES, SAFETENSORS, check_safetensors, needed

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_KEYS = {"model": "hf", "dataset": "hf-dataset"}


def resolve_model(
    model: Model,
    *,
    base_dir: Path,
    access: Access,
    report: Report = quiet,
    without_weights: frozenset[str] = frozenset(),
) -> ModelFolder:
    """The model of a spec as a checked folder. A plain path and a claim are used in place, others through the cache.

    Components `without_weights` need their configuration only.

    Raises BadConfiguration (78) for a model that isn't there or may not be used, TryAgain (75) if its source is down.
    """
    allowed = Allowed(
        variant=model.variant,
        pipeline=model.pipeline,
        pickle=model.allow_pickle,
        remote_code=model.allow_remote_code,
        without_weights=without_weights,
    )
    where = access.locate(model.uri, base_dir=base_dir, field=FIELD)
    if isinstance(where, Local):
        return check_folder(_in_place(where.path, model.uri), allowed)
    reason = ("pickle" if allowed.pickle else "", "code" if allowed.remote_code else "")
    if isinstance(where, Hub):
        source, key = hub_source(where, model.revision, access, wanted=("model", allowed.variant or "", *reason))
    else:
        refuse_revision(model.revision, "spec.model.revision")
        source = bucket_source(where, access=access, field=FIELD)
        key = cache.key_of("s3", where.bucket, where.key, source.identity, "model", allowed.variant or "", *reason)
    folder = cache.find(access.cache, key)
    if folder is None:
        assert source is not None, "without a source, the cache was found complete"
        folder = cache.ensure(access.cache, key, _needed_of(source, allowed), report=report)
    return check_folder(folder, allowed)


def resolve_lora(lora: Lora, index: int, *, base_dir: Path, access: Access, report: Report = quiet) -> LoraFile:
    """One LoRA of a spec as a checked safetensors file; `index` is its place in the list. Raises as resolve_model."""
    field = f"spec.model.lora[{index}]"
    where = access.locate(lora.uri, base_dir=base_dir, field=f"{field}.uri")
    if isinstance(where, Local):
        path = _local_lora(where.path, lora.weight_name, field)
    else:
        path = _fetched_lora(where, lora, field, access=access, report=report)
    check_safetensors(path, field=f"{field}.uri")
    return LoraFile(name=lora.name or f"lora{index}", path=path, scale=float(lora.scale))


def _in_place(path: Path, uri: str) -> Path:
    if not path.exists() and not uri.startswith(("/", ".", "~", "file:", "pvc:")) and uri.count("/") == 1:
        raise BadConfiguration(
            f"there is no folder {path}", field=FIELD, remedy=f"a model of the hub is written hf://{uri}"
        )
    return path


def refuse_revision(revision: str | None, field: str, *, what: str = "an s3:// location") -> None:
    """Raise BadConfiguration for a revision of what has none."""
    if revision is not None:
        raise BadConfiguration(f"{what} has no revisions", field=field, remedy="leave it out")


def _needed_of(source: Source, allowed: Allowed) -> Source:
    """The files of `source` to download, once it's sure by their names that the model can be used."""
    index_file = source.named(INDEX_FILE)
    if index_file is None:
        singles = [file.name for file in source.files if file.name.endswith(SAFETENSORS) and "/" not in file.name]
        hint = f"it holds {singles[0]!r}, which has to be converted to a folder first" if singles else "see its files"
        raise BadConfiguration(
            f"{source.label} has no {INDEX_FILE}: no model in diffusers' format", field=FIELD, remedy=hint
        )
    with tempfile.TemporaryDirectory(prefix="frazil-model-") as scratch:
        raw = source.download(index_file, Path(scratch)).read_bytes()
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadConfiguration(f"{INDEX_FILE} of {source.label} is not JSON", field=FIELD) from None
    index = read_index(value, source.label)
    names = [file.name for file in source.files]
    check_index(index, allowed, where=source.label)
    check_names(index, names, allowed, where=source.label)
    return source.only(
        needed(
            names,
            components=list(index.components),
            variant=allowed.variant,
            allow_pickle=allowed.pickle,
            allow_remote_code=allowed.remote_code,
        )
    )


def hub_source(
    where: Hub,
    revision: str | None,
    access: Access,
    *,
    wanted: tuple[str, ...],
    field: str = "spec.model",
    kind: Literal["model", "dataset"] = "model",
) -> tuple[Source | None, str]:
    """The source of a repository and its cache key. No source where the key is complete and the hub was not asked, or
    could not be."""

    def key_of(commit: str) -> str:
        return cache.key_of(_HUB_KEYS[kind], where.repository, commit, access.hub_endpoint or "", *wanted)

    if revision is not None and _COMMIT.fullmatch(revision) and cache.find(access.cache, key_of(revision)):
        return None, key_of(revision)
    remembered = access.cache / "refs" / f"{cache.key_of(_HUB_KEYS[kind], where.repository, revision or 'main')}.json"
    reader = HubReader(access, where, field=f"{field}.uri", revision_field=f"{field}.revision", kind=kind)
    try:
        source = reader.source(revision)
    except (TryAgain, HubOffline) as error:
        commit = _remembered(remembered)
        if commit is None or cache.find(access.cache, key_of(commit)) is None:
            raise
        get_logger().warning(
            "the hub can't be asked; using what it said last", what=str(where), commit=commit, why=str(error)
        )
        return None, key_of(commit)
    _remember(remembered, source.identity)
    return source, key_of(source.identity)


def _remembered(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_bytes())["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(path: Path, commit: str) -> None:
    if _remembered(path) == commit:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"commit": commit}))
    except OSError as error:
        get_logger().warning("the revision is not remembered for when the hub is down", why=str(error))


def _local_lora(path: Path, weight_name: str | None, field: str) -> Path:
    if path.is_dir():
        names = [file.name for file in path.iterdir() if file.is_file()]
        return path / _lora_name(names, weight_name, str(path), field)
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) or "a plain path is relative to the job file"
        raise BadConfiguration(f"there is no LoRA file {path}", field=f"{field}.uri", remedy=hint)
    return path.parent / _lora_name([path.name], weight_name or path.name, str(path.parent), field)


def _fetched_lora(where: Hub | Bucket, lora: Lora, field: str, *, access: Access, report: Report) -> Path:
    if isinstance(where, Hub):
        wanted = ("lora", lora.weight_name or "")
        source, key = hub_source(where, lora.revision, access, wanted=wanted, field=field)
    else:
        refuse_revision(lora.revision, f"{field}.revision")
        source = bucket_source(where, access=access, field=f"{field}.uri")
        key = cache.key_of("s3", where.bucket, where.key, source.identity, "lora", lora.weight_name or "")
    folder = cache.find(access.cache, key)
    if folder is None:
        assert source is not None, "without a source, the cache was found complete"
        name = _lora_name([file.name for file in source.files], lora.weight_name, source.label, field)
        folder = cache.ensure(access.cache, key, source.only([name]), report=report)
    return next(folder.rglob(f"*{SAFETENSORS}"))


def _lora_name(names: list[str], weight_name: str | None, where: str, field: str) -> str:
    """The file of `names` to use: the one asked for, or the only safetensors file. Raises BadConfiguration."""
    safe = sorted(name for name in names if name.endswith(SAFETENSORS))
    if weight_name is None:
        if len(safe) == 1:
            return safe[0]
        if safe:
            hint = f"choose one with weightName: {', '.join(safe[:5])}"
            raise BadConfiguration(f"{where} has {len(safe)} LoRA files", field=f"{field}.weightName", remedy=hint)
        pickles = [name for name in names if Path(name).suffix in PICKLES]
        what = f"only pickled files ({pickles[0]})" if pickles else "no safetensors file"
        raise BadConfiguration(f"{where} has {what}", field=f"{field}.uri", remedy="a LoRA must be a safetensors file")
    if not weight_name.endswith(SAFETENSORS) or clean_path(weight_name) is None:
        raise BadConfiguration(
            f"{weight_name!r} is no safetensors file",
            field=f"{field}.weightName",
            remedy="a LoRA must be a safetensors file",
        )
    if weight_name not in names:
        hint = nearest(weight_name, safe) or "see its files"
        raise BadConfiguration(f"{where} has no file {weight_name!r}", field=f"{field}.weightName", remedy=hint)
    return weight_name
