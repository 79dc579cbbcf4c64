"""Text as sequences of tokens: all documents in a row, an end token after each, cut every `length` tokens.

The tokens lie in one file that is mapped into memory: ranks of a node share it, and a sequence is a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import datasets
import numpy as np
from filelock import FileLock

from frazil_jobs.base.exits import BadInput

_DOCUMENTS: Final = 256
"""Tokenized at once."""
_CHARACTERS: Final = 1 << 16
"""A longer document is tokenized in parts of so many characters, cut at the ends of lines."""


class TokenSamples:
    """Sequences of `length` tokens."""

    def __init__(self, path: Path, length: int) -> None:
        self._tokens = np.load(path, mmap_mode="r")
        self._length = length
        self._count = len(self._tokens) // length
        if not self._count:
            raise BadInput(
                f"the text has {len(self._tokens)} tokens, fewer than one sequence of {length}",
                field="spec.dataset.sequenceLength",
                remedy="give more text, or shorter sequences",
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = index * self._length
        return {"tokens": np.asarray(self._tokens[start : start + self._length], dtype=np.int64)}


def tokenized(table: Callable[[], datasets.Dataset], column: str, tokenizer: Any, *, path: Path) -> Path:
    """The tokens of a column as a file at `path`; of the ranks of a node that ask at once, one makes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            parts = list(_encoded(table(), column, tokenizer))
            tokens = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
            temporary = path.with_suffix(".part.npy")
            np.save(temporary, tokens)
            temporary.replace(path)
    return path


def _encoded(table: datasets.Dataset, column: str, tokenizer: Any) -> Iterator[np.ndarray[Any, np.dtype[np.int32]]]:
    end = tokenizer.eos_token_id
    for start in range(0, len(table), _DOCUMENTS):
        texts = table[start : start + _DOCUMENTS][column]
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise BadInput(
                    f"row {start + number} is a {type(text).__name__}, not text", field="spec.dataset.columns.text"
                )
            ids = [token for part in _parts(text) for token in tokenizer(part, add_special_tokens=False)["input_ids"]]
            if end is not None:
                ids.append(end)
            yield np.asarray(ids, dtype=np.int32)


def _parts(text: str) -> Iterable[str]:
    if len(text) <= _CHARACTERS:
        return [text]
    parts: list[str] = []
    current: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        if size + len(line) > _CHARACTERS and current:
            parts.append("".join(current))
            current, size = [], 0
        current.append(line)
        size += len(line)
    return [*parts, "".join(current)]
