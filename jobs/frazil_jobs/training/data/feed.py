"""What a rank trains and evaluates on: samples, their order, and torchdata's loader around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from torch.utils.data import Dataset as TorchDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from frazil_jobs.base.exits import BadInput
from frazil_jobs.inputs.dataset_files import FIELD, DatasetFiles
from frazil_jobs.training.data.order import BatchOrder, Share, held_out
from frazil_jobs.training.data.reading import (
    PictureSamples,
    Samples,
    class_names,
    label_range,
    numbers_by_name,
    open_table,
)
from frazil_jobs.training.data.tokens import TokenSamples, tokenized
from frazil_jobs.training.tasks import CausalLM, DiffusionTransformer, ImageClassification, Task
from frazil_jobs.training.tasks.base import Row


@dataclass(frozen=True)
class Part(TorchDataset[Row]):
    """Some samples of a data set."""

    samples: Samples
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.samples[self.rows[index]]


@dataclass(frozen=True)
class Data:
    """What there is to train and to evaluate on."""

    training: Part
    validation: Part


def open_data(task: Task, files: DatasetFiles, *, scratch: Path) -> Data:
    """Open the data set of a task. Raises BadInput for what is wrong with it. Ranks of a node may call it at once."""
    scratch.mkdir(parents=True, exist_ok=True)
    training = _samples(task, files, files.train, "train", scratch)
    if files.validation is not None:
        others = _samples(task, files, files.validation, "validation", scratch, training)
        rows = range(len(training))
        data = Data(Part(training, rows), Part(others, range(len(others))))
    else:
        kept, aside = held_out(len(training))
        data = Data(Part(training, kept), Part(training, aside))
    if task.spec.evaluation.every_steps and not len(data.validation):
        raise BadInput(
            "one sample is too few to set some aside for validation",
            field=FIELD,
            remedy="give more data, name a dataset.validationSplit, or set evaluation.everySteps to 0",
        )
    return data


def _samples(
    task: Task, files: DatasetFiles, names: list[str], split: str, scratch: Path, training: Samples | None = None
) -> Samples:
    """Of one split. With `training`, those of the training split, whose classes' numbers count."""
    if isinstance(task, CausalLM):
        path = tokenized(
            lambda: open_table(files, names, scratch=scratch),
            files.columns["text"],
            task.tokenizer(),
            path=scratch / f"{split}.npy",
        )
        return TokenSamples(path, task.length)
    with FileLock(f"{scratch / split}.lock"):
        table = open_table(files, names, scratch=scratch)
    numbers = None
    base = files.root if files.format == "imagefolder" else (files.root / names[0]).parent
    if isinstance(task, ImageClassification):
        task.check_labels(*label_range(table, files.columns["label"]))
        other = "label"
        if isinstance(training, PictureSamples):
            numbers = numbers_by_name(class_names(table, files.columns["label"]), training.classes)
    else:
        assert isinstance(task, DiffusionTransformer), "all tasks are told apart"
        other = "caption"
    return PictureSamples(
        table,
        task.picture,
        base=base,
        image=files.columns["image"],
        other=files.columns[other],
        name=other,
        numbers=numbers,
    )


def loader(part: Part, share: Share, *, seed: int, steps: int, first: int = 0, workers: int = 0) -> Any:
    """Pipeline batches of this replica, as lists of rows, of the steps `first` to `steps` - 1."""
    order = BatchOrder(
        seed=seed,
        count=len(part),
        share=share,
        batches=steps * share.accumulation,
        first=first * share.accumulation,
    )
    return StatefulDataLoader(part, batch_sampler=order, num_workers=workers, collate_fn=list)


def validation_batches(part: Part, share: Share, *, batches: int) -> Iterator[list[Row]]:
    """The same batches each time: the validation rows in their order, from the start again where they are too few."""
    for number in range(batches):
        start = share.start(number)
        yield [part[(start + offset) % len(part)] for offset in range(share.size)]
