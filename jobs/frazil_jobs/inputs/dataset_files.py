"""A data set's files as they lie: which are which split, and are the columns there?

Only names, schemas and first rows are read, without torch and without the library that reads the rows later, so that a
data set that can't work is refused before any GPU is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from frazil_jobs.api.trainingjob import Dataset, Task
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.inputs.rows import nearest

FIELD: Final = "spec.dataset.uri"
COLUMNS: Final[Mapping[Task, tuple[str, ...]]] = {
    "CausalLM": ("text",),
    "ImageClassification": ("image", "label"),
    "DiffusionTransformer": ("image", "caption"),
}
"""What each task reads, by the names in `dataset.columns`."""
PICTURES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
METADATA: Final = "metadata.jsonl"
_SAMPLED_BYTES: Final = 1 << 16
_TAR_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("jpg", "jpeg", "png", "webp"),
    "caption": ("txt", "caption"),
    "text": ("txt",),
    "label": ("cls", "label"),
}
"""Endings within a webdataset that a column of the default name means."""

Format = Literal["parquet", "jsonl", "webdataset", "imagefolder", "text"]
ENDINGS: Final[Mapping[Format, tuple[str, ...]]] = {
    "parquet": (".parquet", ".pq"),
    "webdataset": (".tar",),
    "imagefolder": tuple(sorted(PICTURES)),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "text": (".txt", ".md"),
}
_SPLITS: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Names of a split, as they stand in names of files and folders."""


class DatasetFiles(BaseModel):
    """A data set on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path
    format: Format
    train: list[str]
    """Files of the training split, relative to `root`, in the order of their names."""
    validation: list[str] | None = None
    """Of the validation split. None: rows of the training split are set aside."""
    columns: dict[str, str]
    """What the task calls a column (text, image, label, caption) to its name in the data."""
    fingerprint: str
    """A sha256 over names, sizes and samples of all files: other data, another one."""


def look(path: Path, dataset: Dataset, task: Task) -> DatasetFiles:
    """The files at `path` (a folder or one file), their format, splits and columns. Raises BadConfiguration, BadInput."""
    root, names = _listed(path)
    file_format = _format(path, names, dataset)
    kept = [name for name in names if _is_of(name, file_format)]
    if not kept:
        raise BadInput(f"there is no {file_format} file at {path}", field=FIELD, remedy="check path and dataset.format")
    train = _of_split(kept, dataset.split, field="spec.dataset.split", whole=dataset.split == "train")
    validation = None
    if dataset.validation_split is not None:
        validation = _of_split(kept, dataset.validation_split, field="spec.dataset.validationSplit", whole=False)
        train = [name for name in train if name not in set(validation)]
    columns = {}
    for column in COLUMNS[task]:
        wanted = getattr(dataset.columns, column)
        columns[column] = _column(column, wanted, _SCHEMAS[file_format](root, train), what=file_format)
        if validation is not None:
            _column(
                column, wanted, _SCHEMAS[file_format](root, validation), what=f"{file_format} of the validation split"
            )
    return DatasetFiles(
        root=root,
        format=file_format,
        train=train,
        validation=validation,
        columns=columns,
        fingerprint=_fingerprint(root, [*train, *(validation or [])]),
    )


def _listed(path: Path) -> tuple[Path, list[str]]:
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) or "a data set of the hub is written hf://owner/name"
        raise BadConfiguration(f"there is no data set {path}", field=FIELD, remedy=hint)
    names = []
    for folder, inner, files in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = Path(folder).relative_to(path)
        names += [(below / name).as_posix() for name in files if not name.startswith(".")]
    return path, sorted(names)


def _format(path: Path, names: Sequence[str], dataset: Dataset) -> Format:
    if dataset.format != "Auto":
        return dataset.format
    for file_format, endings in ENDINGS.items():
        if any(PurePosixPath(name).suffix.lower() in endings for name in names):
            return file_format
    raise BadInput(
        f"nothing at {path} ends like a data set",
        field="spec.dataset.format",
        remedy="parquet, jsonl, webdataset (.tar), imagefolder and text are read; say which, if the endings are others",
    )


def _is_of(name: str, file_format: Format) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    if file_format == "imagefolder":
        return suffix in PICTURES or PurePosixPath(name).name == METADATA
    return suffix in ENDINGS[file_format]


def _of_split(names: Sequence[str], split: str, *, field: str, whole: bool) -> list[str]:
    """Files of a split, told by the words in their paths; `whole`: all of them, where no name has any split's word."""
    tagged = {name: _split_of(name) for name in names}
    canonical = _canonical(split)
    found = [name for name in names if tagged[name] == canonical]
    if found:
        return found
    if whole and not any(tagged.values()):
        return list(names)
    there = sorted({tag for tag in tagged.values() if tag})
    raise BadConfiguration(
        f"no file belongs to the split {split!r}",
        field=field,
        remedy=f"splits there: {', '.join(there) or 'none'}; a split is a word of a file's or a folder's name",
    )


def _canonical(word: str) -> str:
    return next((split for split, words in _SPLITS.items() if word.lower() in words), word.lower())


def _split_of(name: str) -> str | None:
    """The split that a path names: the first word of it that is a split's."""
    stem = PurePosixPath(name).with_suffix("").as_posix().lower()
    for word in re.split(r"[^a-z]+", stem):
        for split, words in _SPLITS.items():
            if word in words:
                return split
    return None


def _column(column: str, wanted: str, there: Iterable[str], *, what: str) -> str:
    """The name of a column in the data. Raises BadInput."""
    known = list(there)
    if wanted in known:
        return wanted
    if what.startswith("webdataset") and wanted == column:
        for alias in _TAR_ALIASES.get(column, ()):
            if alias in known:
                return alias
    hint = nearest(wanted, known) or f"columns there: {', '.join(known) or 'none'}"
    raise BadInput(f"the {what} has no column {wanted!r}", field=f"spec.dataset.columns.{column}", remedy=hint)


# --- the columns of each format, by its first file ---


def _parquet(root: Path, names: Sequence[str]) -> list[str]:
    import pyarrow
    import pyarrow.parquet as parquet

    found: list[str] | None = None
    for name in names:
        try:
            columns = list(parquet.read_schema(root / name).names)
        except (pyarrow.ArrowException, OSError) as error:
            raise BadInput(f"{name} can't be read: {str(error).splitlines()[0]}", field=FIELD) from None
        found = columns if found is None else [column for column in found if column in columns]
    return found or []


def _jsonl(root: Path, names: Sequence[str]) -> list[str]:
    return list(_first_object(root / names[0]))


def _first_object(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        line = next((line for line in file if line.strip()), b"")
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise BadInput(f"{path.name} doesn't begin with a JSON object in one line", field=FIELD, remedy="write jsonl")
    return value


def _text(_root: Path, _names: Sequence[str]) -> list[str]:
    return ["text"]


def _webdataset(root: Path, names: Sequence[str]) -> list[str]:
    try:
        with tarfile.open(root / names[0]) as archive:
            endings: list[str] = []
            first: str | None = None
            for member in archive:
                key, _, ending = PurePosixPath(member.name).name.partition(".")
                if not member.isfile() or not ending:
                    continue
                if first is not None and key != first:
                    break
                first = key
                endings.append(ending.lower())
    except (tarfile.TarError, OSError) as error:
        raise BadInput(f"{names[0]} can't be read: {error}", field=FIELD) from None
    return endings


def _imagefolder(root: Path, names: Sequence[str]) -> list[str]:
    metadata = next((name for name in names if PurePosixPath(name).name == METADATA), None)
    if metadata is not None:
        row = _first_object(root / metadata)
        if "file_name" not in row:
            raise BadInput(
                f"{metadata} has no column 'file_name'", field=FIELD, remedy="name each picture's file, relative to it"
            )
        return ["image", *(name for name in row if name != "file_name")]
    folders = {PurePosixPath(name).parent.name for name in names if PurePosixPath(name).parent.name}
    return ["image", "label"] if len(folders) > 1 else ["image"]


_SCHEMAS: Final[Mapping[Format, Callable[[Path, Sequence[str]], list[str]]]] = {
    "parquet": _parquet,
    "jsonl": _jsonl,
    "text": _text,
    "webdataset": _webdataset,
    "imagefolder": _imagefolder,
}


def _fingerprint(root: Path, names: Sequence[str]) -> str:
    """Names and sizes; of files that are no pictures also beginning and end."""
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
        if path.suffix.lower() not in PICTURES:
            with path.open("rb") as file:
                digest.update(file.read(_SAMPLED_BYTES))
                file.seek(max(0, size - _SAMPLED_BYTES))
                digest.update(file.read(_SAMPLED_BYTES))
    return digest.hexdigest()
