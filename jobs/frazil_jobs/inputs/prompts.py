"""Prompts: found, inspected before anything is loaded, pinned by sha256, and read again shard by shard.

An inspection reads every row; what it returns is of constant size. A file that is not byte for byte the one that was
inspected is bad input for the shard that finds out (design: "How data gets in").
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from io import BufferedReader
from pathlib import Path
from typing import cast

from frazil_jobs.api.generationjob import Prompts
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.inputs import formats
from frazil_jobs.inputs.access import Access, named
from frazil_jobs.inputs.formats import Format, Records
from frazil_jobs.inputs.locations import Bucket, Hub, Local
from frazil_jobs.inputs.rows import MAX_ROWS, FileFormat, PromptRow, PromptsPin, RowError, nearest, row_of

MAX_FILE_BYTES = 4 << 30
MAX_ERRORS = 10
"""Rows that are reported at once."""
_FIELD = "spec.prompts.uri"

Span = tuple[int, int]
"""The first prompt and how many."""


@dataclass(frozen=True)
class PromptFile:
    """Prompts that can be read, from wherever they come."""

    name: str
    """What errors call it."""
    format: FileFormat
    root: Local | Bucket | None
    """The folder that its rows may name pictures in; None where they may name none by path."""
    per_shard: int
    size: int
    sha256: str
    open: Callable[[], Records]

    def inspect(self) -> PromptsPin:
        """Validate every row. Raises BadInput that lists up to ten rows with what is wrong."""
        problems: list[str] = []
        ids: dict[bytes, str] = {}
        count = 0
        for place, parse in self.open():
            count = self._counted(count)
            try:
                row = parse()
                _check_id(row, place, ids)
            except RowError as error:
                problems.append(f"{self.name} {place}: {error}")
                if len(problems) == MAX_ERRORS:
                    break
        if problems:
            raise _bad_rows(self.name, problems)
        return self._pin(count)

    def pinned(self, sha256: str) -> PromptsPin:
        """The pin of a file inspected as `sha256` before; rows are counted, not read. Raises BadInput if it changed."""
        if self.sha256 != sha256:
            raise BadInput(
                f"{self.name} is not the file that was inspected: its sha256 is {self.sha256}, not {sha256}",
                field=_FIELD,
                remedy="put the old file back, or start a new job for the new one",
            )
        count = 0
        for _ in self.open():
            count = self._counted(count)
        return self._pin(count)

    def rows(self, spans: Sequence[Span]) -> Iterator[tuple[int, str, PromptRow]]:
        """Prompt index, place ("line 17") and row of all in `spans`, in one pass over the file."""
        wanted = sorted(spans)
        last = max((first + count for first, count in wanted), default=0)
        position = 0
        for index, (place, parse) in enumerate(self.open()):
            if index >= last:
                return
            while position < len(wanted) and index >= sum(wanted[position]):
                position += 1
            if index >= wanted[position][0]:
                try:
                    yield index, place, parse()
                except RowError as error:
                    raise BadInput(f"{self.name} {place}: {error}", field="spec.prompts") from None

    def _counted(self, count: int) -> int:
        if count >= MAX_ROWS:
            raise formats.too_many(self.name, count + 1)
        return count + 1

    def _pin(self, count: int) -> PromptsPin:
        if not count:
            raise BadInput(f"{self.name} holds no prompt", field="spec.prompts", remedy="give at least one row")
        return PromptsPin(
            sha256=self.sha256,
            count=count,
            shards=-(-count // self.per_shard),
            per_shard=self.per_shard,
            format=self.format,
            size=self.size,
        )


def inspect_prompts(prompts: Prompts, *, base_dir: Path, access: Access) -> PromptsPin:
    """Read and validate all prompts of a job. Plain paths are relative to `base_dir`, the job file's folder.

    Raises BadInput (65) for what the file holds, BadConfiguration (78) where it can't be found, TryAgain (75) where the
    store is down.
    """
    with open_prompts(prompts, base_dir=base_dir, access=access) as file:
        return file.inspect()


def iter_rows(prompts: Prompts, pin: PromptsPin, *, base_dir: Path, access: Access) -> Iterator[tuple[int, PromptRow]]:
    """All rows of the pinned prompts with their prompt index. Raises BadInput if the file changed since."""
    with open_prompts(prompts, base_dir=base_dir, access=access) as file:
        for index, _, row in file.rows([(0, file.pinned(pin.sha256).count)]):
            yield index, row


def read_rows(
    prompts: Prompts, pin: PromptsPin, *, first: int, count: int, base_dir: Path, access: Access
) -> list[PromptRow]:
    """`count` rows of the pinned prompts from prompt `first` on. Raises BadInput if the file changed since."""
    with open_prompts(prompts, base_dir=base_dir, access=access) as file:
        file.pinned(pin.sha256)
        return [row for _, _, row in file.rows([(first, count)])]


@contextmanager
def open_prompts(prompts: Prompts, *, base_dir: Path, access: Access) -> Iterator[PromptFile]:
    """The prompts of a job, open for reading. An object of a store is copied to a temporary file for as long."""
    if prompts.inline is not None:
        yield _inline(prompts.inline, per_shard=prompts.per_shard)
        return
    if prompts.config_map_ref is not None:
        if access.config_map_file is None:
            raise BadConfiguration(
                "a ConfigMap is an object of a cluster, and this is none",
                field="spec.prompts.configMapRef",
                remedy="give `uri` or `inline` for `frazil run`",
            )
        where: Local | Bucket = Local(access.config_map_file)
        name = prompts.config_map_ref.key
    else:
        assert prompts.uri is not None, "the schema asks for exactly one of inline, configMapRef and uri"
        where, name = _located(prompts.uri, base_dir=base_dir, access=access)
    with tempfile.TemporaryDirectory(prefix="frazil-prompts-") as scratch:
        path = _download(where, access=access, scratch=Path(scratch)) if isinstance(where, Bucket) else where.path
        with _opened(path, name) as file:
            before = _identity(file)
            yield _prompt_file(prompts, name=name, where=where, file=file)
            if _identity(file) != before:
                raise BadInput(f"{name} was changed while it was read", field=_FIELD, remedy="wait until it is written")


def _located(uri: str, *, base_dir: Path, access: Access) -> tuple[Local | Bucket, str]:
    where = access.locate(uri, base_dir=base_dir, field=_FIELD)
    if isinstance(where, Hub):
        raise BadConfiguration(
            "prompts aren't read from the hub", field=_FIELD, remedy="give a path or s3://bucket/key"
        )
    return where, uri if isinstance(where, Bucket) else where.path.name


def _download(where: Bucket, *, access: Access, scratch: Path) -> Path:
    store = access.open_bucket(where.bucket, field=_FIELD)
    path = scratch / "prompts"
    with named(_FIELD, where):
        info = store.stat(where.key)
        if info is None:
            raise BadConfiguration(f"there is no object {where}", field=_FIELD, remedy="check bucket and key")
        if info.size > MAX_FILE_BYTES:
            raise _too_large(str(where), info.size)
        store.get_file(where.key, path)
    return path


@contextmanager
def _opened(path: Path, name: str) -> Iterator[BufferedReader]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no plain file"
            raise BadConfiguration(f"{path} is {kind}", field=_FIELD, remedy="name a jsonl, csv or parquet file")
        file = path.open("rb")
    except FileNotFoundError:
        raise BadConfiguration(f"there is no prompt file {path}", field=_FIELD, remedy=_similar(path)) from None
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"{path} can't be read: {error}", field=_FIELD) from None
    with file:
        if status.st_size > MAX_FILE_BYTES:
            raise _too_large(name, status.st_size)
        yield file


def _similar(path: Path) -> str:
    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return nearest(path.name, names) or "a plain path is relative to the job file"


def _too_large(name: str, size: int) -> BadInput:
    return BadInput(
        f"{name} has {size:,} bytes; at most {MAX_FILE_BYTES:,}", field=_FIELD, remedy="split it into several jobs"
    )


def _identity(file: BufferedReader) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _prompt_file(prompts: Prompts, *, name: str, where: Local | Bucket, file: BufferedReader) -> PromptFile:
    asked = str(prompts.format)
    file_format = formats.format_of(name, file) if asked == "Auto" else cast(Format, asked)
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return PromptFile(
        name=name,
        format=file_format,
        root=_folder_of(where),
        per_shard=prompts.per_shard,
        size=file.seek(0, io.SEEK_END),
        sha256=digest,
        open=partial(formats.records, name, file, file_format),
    )


def _folder_of(where: Local | Bucket) -> Local | Bucket:
    if isinstance(where, Bucket):
        return Bucket(where.bucket, where.key.rpartition("/")[0])
    return Local(where.path.parent)


def _inline(texts: Sequence[str], *, per_shard: int) -> PromptFile:
    raw = json.dumps(list(texts), ensure_ascii=False).encode(errors="surrogatepass")

    def inline_records() -> Records:
        for index, text in enumerate(texts):
            yield f"[{index}]", partial(row_of, {"prompt": text})

    return PromptFile(
        name="spec.prompts.inline",
        format="inline",
        root=None,
        per_shard=per_shard,
        size=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        open=inline_records,
    )


def _check_id(row: PromptRow, place: str, seen: dict[bytes, str]) -> None:
    """Refuse an id that was there before. A digest of each is kept, so that memory does not grow with their length."""
    if row.id is None:
        return
    digest = blake2b(row.id.encode(), digest_size=16).digest()
    if digest in seen:
        raise RowError(f"the id {row.id!r} is there twice, first at {seen[digest]}")
    seen[digest] = place


def _bad_rows(name: str, problems: list[str]) -> BadInput:
    if len(problems) == 1:
        return BadInput(problems[0])
    more = "; there may be more" if len(problems) == MAX_ERRORS else ""
    return BadInput(f"{len(problems)} rows of {name} can't be used{more}:\n  " + "\n  ".join(problems))
