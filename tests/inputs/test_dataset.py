"""Data sets looked at before any GPU is taken: formats, splits and columns, each error with its field and the way out."""

from __future__ import annotations

import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from frazil_jobs.api.trainingjob import Dataset
from frazil_jobs.base.exits import BadConfiguration, BadInput, FrazilError
from frazil_jobs.inputs.dataset_files import look


def table(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)


def of(folder, task="CausalLM", **spec):
    return look(folder, Dataset.model_validate({"uri": "data", **spec}), task)


def test_parquet_files_named_after_splits(tmp_path):
    table(tmp_path / "data" / "train-00000-of-00002.parquet", text=["a"])
    table(tmp_path / "data" / "train-00001-of-00002.parquet", text=["b"])
    table(tmp_path / "data" / "validation.parquet", text=["c"])
    found = of(tmp_path)
    assert found.format == "parquet"
    assert found.train == ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
    assert found.validation is None
    assert of(tmp_path, validationSplit="val").validation == ["data/validation.parquet"]


def test_files_without_a_split_in_their_names_are_all_trained_on(tmp_path):
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "a.jsonl").write_text('{"text": "y"}\n')
    assert of(tmp_path).train == ["a.jsonl", "b.jsonl"]


def test_one_file_is_a_data_set(tmp_path):
    (tmp_path / "book.txt").write_text("once upon a time")
    found = of(tmp_path / "book.txt")
    assert (found.root, found.format, found.train) == (tmp_path, "text", ["book.txt"])


def test_pictures_in_folders_have_labels_and_with_metadata_captions(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert of(tmp_path, "ImageClassification").columns == {"image": "image", "label": "label"}
    with pytest.raises(BadInput, match="no column 'caption'"):
        of(tmp_path, "DiffusionTransformer")
    (tmp_path / "train" / "metadata.jsonl").write_text(json.dumps({"file_name": "cat/1.png", "caption": "a cat"}))
    assert of(tmp_path, "DiffusionTransformer").columns == {"image": "image", "caption": "caption"}


def test_a_webdataset_has_its_endings_as_columns(tmp_path):
    with tarfile.open(tmp_path / "0000.tar", "w") as archive:
        for name in ("one.jpg", "one.txt", "two.jpg"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert of(tmp_path, "DiffusionTransformer").columns == {"image": "jpg", "caption": "txt"}


@pytest.mark.parametrize(
    ("spec", "field", "remedy"),
    [
        ({"columns": {"text": "Text_"}}, "spec.dataset.columns.text", 'did you mean "text"?'),
        ({"columns": {"text": "story"}}, "spec.dataset.columns.text", "columns there: text"),
        ({"split": "test"}, "spec.dataset.split", "splits there: train"),
        ({"validationSplit": "validation"}, "spec.dataset.validationSplit", "splits there: train"),
        ({"format": "jsonl"}, "spec.dataset.uri", "check path and dataset.format"),
        ({"revision": "main"}, "spec.dataset.revision", "leave it out"),
    ],
)
def test_each_error_names_its_field_and_the_way_out(tmp_path, spec, field, remedy):
    from frazil_jobs.inputs.access import Access
    from frazil_jobs.inputs.dataset import resolve_dataset

    table(tmp_path / "train.parquet", text=["a"])
    dataset = Dataset.model_validate({"uri": str(tmp_path), **spec})
    with pytest.raises(FrazilError) as caught:
        resolve_dataset(dataset, "CausalLM", base_dir=tmp_path, access=Access(cache=tmp_path / "cache"))
    assert caught.value.field == field
    assert remedy in caught.value.remedy


def test_a_column_that_only_some_files_have_is_missing(tmp_path):
    table(tmp_path / "train-0.parquet", text=["a"])
    table(tmp_path / "train-1.parquet", words=["a"])
    with pytest.raises(BadInput, match="no column 'text'"):
        of(tmp_path)


def test_nothing_at_all_is_told_with_the_nearest_name(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(BadConfiguration) as caught:
        of(tmp_path / "picture")
    assert caught.value.remedy == 'did you mean "pictures"?'


def test_other_data_has_another_fingerprint(tmp_path):
    table(tmp_path / "train.parquet", text=["a"])
    before = of(tmp_path).fingerprint
    assert of(tmp_path).fingerprint == before
    table(tmp_path / "train.parquet", text=["b"])
    assert of(tmp_path).fingerprint != before
