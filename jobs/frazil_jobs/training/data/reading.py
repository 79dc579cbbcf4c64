"""Opens the files of a data set with the library `datasets`, and gives samples as a task wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import datasets
from datasets import ClassLabel, Image, Value

from frazil_jobs.base.exits import BadInput
from frazil_jobs.inputs.dataset_files import FIELD, DatasetFiles
from frazil_jobs.training.data.pictures import Picture, opened

_BUILDERS: Final = {
    "parquet": "parquet",
    "jsonl": "json",
    "text": "text",
    "webdataset": "webdataset",
    "imagefolder": "imagefolder",
}


class Samples(Protocol):
    """Samples by their number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict[str, Any]: ...


def open_table(files: DatasetFiles, names: Sequence[str], *, scratch: Path) -> datasets.Dataset:
    """The rows of some files of a data set, in the order of the files. What has to be decoded lies below `scratch`.

    Raises BadInput for files that can't be read, or that hold no row.
    """
    settings: dict[str, Any] = {"sample_by": "document"} if files.format == "text" else {}
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        table = datasets.load_dataset(
            _BUILDERS[files.format],
            data_files={"train": [str(files.root / name) for name in names]},
            split="train",
            cache_dir=str(scratch / "tables"),
            **settings,
        )
    except (
        datasets.exceptions.DatasetGenerationError,
        datasets.exceptions.DatasetsError,
        ValueError,
        OSError,
    ) as error:
        cause = error.__cause__ or error
        raise BadInput(
            f"the data set can't be read: {(str(cause).splitlines() or [type(cause).__name__])[0]}", field=FIELD
        ) from None
    if len(table) == 0:
        raise BadInput("the data set has no rows", field=FIELD)
    return table


class PictureSamples:
    """Rows of a picture and one more column."""

    def __init__(
        self,
        table: datasets.Dataset,
        picture: Picture,
        *,
        base: Path,
        image: str,
        other: str,
        name: str,
        numbers: Mapping[int, int] | None = None,
    ) -> None:
        """`other` is the column beside `image`, given as `name` ("label", "caption"). `numbers`: what its values become."""
        if isinstance(table.features.get(image), Image):
            table = table.cast_column(image, Image(decode=False))
        self._table = table.select_columns([image, other])
        self._picture, self._base = picture, base
        self._image, self._other, self._name, self._numbers = image, other, name, numbers
        self.classes = class_names(table, other)
        """Names of what the column counts, where they have names."""

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._table[index]
        where = f"row {index}"
        try:
            pixels = self._picture.tensor(opened(row[self._image], base=self._base, where=where))
        except OSError as error:  # a picture whose end is missing
            raise BadInput(f"{where}: {error}", field="spec.dataset.columns.image") from None
        value = row[self._other]
        if value is None:
            raise BadInput(f"{where} has no {self._name}", field=f"spec.dataset.columns.{self._name}")
        return {"pixels": pixels, self._name: value if self._numbers is None else self._numbers[value]}


def label_range(table: datasets.Dataset, column: str) -> tuple[int, int]:
    """Smallest and largest label. Raises BadInput when the column holds no whole numbers."""
    feature = table.features[column]
    if isinstance(feature, ClassLabel):
        return 0, max(feature.num_classes - 1, 0)
    if not (isinstance(feature, Value) and feature.dtype.startswith(("int", "uint"))):
        raise BadInput(
            f"labels are {getattr(feature, 'dtype', feature)}, not whole numbers",
            field="spec.dataset.columns.label",
            remedy="number the classes from 0, or use an imagefolder, whose folders are numbered by their names",
        )
    labels = table.select_columns([column]).with_format("numpy")[:][column]
    return int(labels.min()), int(labels.max())


def class_names(table: datasets.Dataset, column: str) -> list[str] | None:
    """The names of a column's classes, by their numbers; None for plain numbers."""
    feature = table.features[column]
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def numbers_by_name(names: Sequence[str] | None, training: Sequence[str] | None) -> dict[int, int] | None:
    """What a split's labels are in the training split, which counts its classes for itself; None where both count alike.

    Raises BadInput for a class that the training split doesn't have.
    """
    if names is None or training is None or names == training:
        return None
    if strange := sorted(set(names) - set(training)):
        raise BadInput(
            f"class {strange[0]!r} of the validation split is none of the training split's: {', '.join(training[:20])}",
            field="spec.dataset.validationSplit",
            remedy="give training pictures of it too, or leave it out of the validation split",
        )
    return {number: training.index(name) for number, name in enumerate(names)}
