"""How prompt files are written: jsonl, csv and parquet, each a stream of rows not yet looked into.

Memory is bounded whatever the file holds: a line is read up to a limit, a table in batches. What makes the whole file
unusable raises BadInput here; what is wrong with one row raises RowError when that row is parsed.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from frazil_jobs.base.exits import BadInput
from frazil_jobs.inputs.rows import MAX_ROWS, PromptRow, RowError, field_of, row_of

MAX_LINE_BYTES = 1 << 20
MAX_GROUP_BYTES = 1 << 30
"""Of one row group of a parquet file, uncompressed: the least that has to be in memory at once."""
_BATCH_ROWS = 512
_SNIFFED_BYTES = 4096
_BOM = b"\xef\xbb\xbf"

Format = Literal["jsonl", "csv", "parquet"]
Parse = Callable[[], PromptRow]
Records = Iterator[tuple[str, Parse]]
"""Where a row is ("line 17"), and what reads it: raises RowError."""

_EXTENSIONS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSED = {".gz", ".bz2", ".xz", ".zst", ".zip"}


def format_of(name: str, file: IO[bytes]) -> Format:
    """The format that `name` ends with, else the one that the first bytes of `file` show. Raises BadInput."""
    suffix = Path(name).suffix.lower()
    if suffix in _EXTENSIONS:
        return _EXTENSIONS[suffix]
    if suffix in _COMPRESSED:
        raise BadInput(
            f"{name} is compressed", field="spec.prompts.uri", remedy="unpack it: jsonl, csv or parquet is read"
        )
    file.seek(0)
    head = file.read(_SNIFFED_BYTES)
    file.seek(0)
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.removeprefix(_BOM).lstrip()
    if text.startswith(b"{"):
        return "jsonl"
    if text.startswith(b"["):
        raise BadInput(
            f"{name} is one JSON list",
            field="spec.prompts.uri",
            remedy='one object a line is read: `jq -c ".[]"` makes that',
        )
    if b"prompt" in text.split(b"\n", 1)[0]:
        return "csv"
    raise BadInput(
        f"{name} has neither an ending that tells its format nor a beginning that does",
        field="spec.prompts.format",
        remedy="say jsonl, csv or parquet",
    )


def records(name: str, file: IO[bytes], file_format: Format) -> Records:
    """The rows of `file`, which errors call `name`. Raises BadInput when no row of it can be read."""
    file.seek(0)
    if file_format == "parquet":
        return _parquet(name, file)
    return _jsonl(name, file) if file_format == "jsonl" else _csv(name, file)


def _lines(name: str, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines with their number from 1, without the byte order mark. Ends with BadInput at one that is too long."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise BadInput(f"{name} is UTF-16", field="spec.prompts", remedy="save it as UTF-8")
            line = line.removeprefix(_BOM)
        if len(line) > MAX_LINE_BYTES:
            raise BadInput(f"{name} line {number}: longer than {MAX_LINE_BYTES:,} bytes", field="spec.prompts")
        yield number, line


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}") from None


def _jsonl(name: str, file: IO[bytes]) -> Records:
    for number, line in _lines(name, file):
        if line.strip():
            yield f"line {number}", partial(_json_row, line)


def _json_row(line: bytes) -> PromptRow:
    value = parse_json(_decoded(line).strip())
    if not isinstance(value, dict):
        raise RowError('must be an object such as {"prompt": "…"}')
    return row_of(value)


def parse_json(text: str) -> Any:
    """A JSON value, strictly: no NaN, no key twice, nothing that is nested without end. Raises RowError."""
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise RowError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RowError("not JSON that can be read: nested too deep") from None
    except RowError:
        raise
    except ValueError:
        raise RowError("not JSON that can be read: a number has too many digits") from None


def _no_constant(word: str) -> Any:
    raise RowError(f"not JSON: {word} is no number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RowError(f"the key {key[:60]!r} is there twice")
        found[key] = value
    return found


def _csv(name: str, file: IO[bytes]) -> Records:
    reader = csv.reader(_text_lines(name, file), strict=True)
    header: list[str] | None = None
    while True:
        before = reader.line_num
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BadInput(f"{name} line {before + 1}: not CSV: {error}", field="spec.prompts") from None
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(f"{name} line {before + 1}", [cell.strip() for cell in cells])
        else:
            yield f"line {before + 1}", partial(_csv_row, header, cells)


def _text_lines(name: str, file: IO[bytes]) -> Iterator[str]:
    for number, line in _lines(name, file):
        try:
            yield _decoded(line)
        except RowError as error:
            raise BadInput(f"{name} line {number}: {error}", field="spec.prompts", remedy="save it as UTF-8") from None


def _header(place: str, names: list[str]) -> list[str]:
    """The header of a table, checked: known columns, each once, `prompt` among them."""
    if len(names) == 1 and (wrong := next((mark for mark in ";\t|" if mark in names[0]), None)):
        raise BadInput(
            f"{place}: columns are separated by {wrong!r}", field="spec.prompts", remedy="separate them by commas"
        )
    try:
        fields = [field_of(name) for name in names]
    except RowError as error:
        raise BadInput(f"{place}: {error}".replace("unknown field", "unknown column"), field="spec.prompts") from None
    if twice := next((name for name, field in zip(names, fields, strict=True) if fields.count(field) > 1), None):
        raise BadInput(f"{place}: the column {twice!r} is there twice", field="spec.prompts")
    if "prompt" not in fields:
        raise BadInput(
            f"{place}: there is no column `prompt`", field="spec.prompts", remedy="name the columns in the first line"
        )
    return fields


def _csv_row(header: Sequence[str], cells: Sequence[str]) -> PromptRow:
    if len(cells) != len(header):
        raise RowError(f"has {len(cells)} cells where the header has {len(header)} columns")
    return row_of({field: _cell(field, cell) for field, cell in zip(header, cells, strict=True) if cell != ""})


def _cell(field: str, cell: str) -> Any:
    """The value of a cell. One below `extra` is JSON where it reads as JSON, and text otherwise."""
    if field == "seed":
        if not re.fullmatch(r"[0-9]{1,20}", cell.strip()):
            raise RowError(f"`seed` must be a whole number, not {cell[:60]!r}")
        return int(cell)
    if field in ("images", "extra"):
        return parse_json(cell)
    if field.startswith("extra."):
        try:
            return parse_json(cell)
        except RowError:
            return cell
    return cell


def _parquet(name: str, file: IO[bytes]) -> Records:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        _check_table(name, table)
        number = 0
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            for mapping in batch.to_pylist(maps_as_pydicts="strict"):
                number += 1
                yield f"row {number}", partial(_table_row, mapping)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise BadInput(
            f"{name} is no parquet file that can be read: {_first_line(error)}", field="spec.prompts"
        ) from None


def _check_table(name: str, table: Any) -> None:
    fields = _header(name, list(table.schema_arrow.names))
    if table.metadata.num_rows > MAX_ROWS:
        raise too_many(name, table.metadata.num_rows)
    groups = (table.metadata.row_group(index).total_byte_size for index in range(table.num_row_groups))
    if (largest := max(groups, default=0)) > MAX_GROUP_BYTES:
        raise BadInput(
            f"{name} has a row group of {largest:,} bytes, {len(fields)} columns; at most {MAX_GROUP_BYTES:,} are read",
            field="spec.prompts",
            remedy="write it with smaller row groups",
        )


def too_many(name: str, count: int) -> BadInput:
    """The error for a file of `count` rows or more."""
    return BadInput(
        f"{name} has {count:,} prompts or more; one job takes at most {MAX_ROWS:,}",
        field="spec.prompts",
        remedy="split it into several jobs",
    )


def _table_row(mapping: dict[str, Any]) -> PromptRow:
    return row_of({field: _table_cell(field, value) for field, value in mapping.items()})


def _table_cell(field: str, value: Any) -> Any:
    """The value of a cell: a missing number is NaN, and whole numbers beside one are floats, in what pandas writes."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if field == "seed" and isinstance(value, float) and value.is_integer():
        return int(value)
    if field in ("images", "extra") and isinstance(value, str):
        return parse_json(value) if value else None
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
