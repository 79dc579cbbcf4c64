"""The three formats of prompt files: what they mean, what they refuse, and that no bytes break them."""

from __future__ import annotations

import csv
import io
import json
import string

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from frazil_jobs.base.exits import BadInput
from frazil_jobs.inputs import formats
from frazil_jobs.inputs.rows import MAX_CHARACTERS, PromptRow, RowError, row_of


def rows_of(data: bytes, file_format: formats.Format, name: str = "prompts") -> list[PromptRow]:
    return [parse() for _, parse in formats.records(name, io.BytesIO(data), file_format)]


def jsonl(*documents: object) -> bytes:
    return "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents).encode()


def csv_of(rows: list[PromptRow]) -> bytes:
    pictures = sorted({name for row in rows for name in row.images})
    extras = sorted({name for row in rows for name in row.extra})
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        ["prompt", "negativePrompt", "seed", "id", *(f"images.{n}" for n in pictures), *(f"extra.{n}" for n in extras)]
    )
    for row in rows:
        writer.writerow(
            [row.prompt, row.negative_prompt, row.seed, row.id, *(row.images.get(name) for name in pictures)]
            + [json.dumps(row.extra[name]) if name in row.extra else None for name in extras]
        )
    return out.getvalue().encode()


def parquet_of(rows: list[PromptRow], *, row_group_size: int = 2) -> bytes:
    table = pa.table(
        {
            "prompt": pa.array([row.prompt for row in rows], pa.string()),
            "negative_prompt": pa.array([row.negative_prompt for row in rows], pa.string()),
            "seed": pa.array([row.seed for row in rows], pa.int64()),
            "id": pa.array([row.id for row in rows], pa.string()),
            "images": pa.array([list(row.images.items()) for row in rows], pa.map_(pa.string(), pa.string())),
            "extra": pa.array([json.dumps(row.extra) for row in rows], pa.string()),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=row_group_size)
    return out.getvalue()


TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=30)
NAMES = st.sampled_from(["image", "mask_image", "control_image", "strength", "guidance_rescale"])
VALUES = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), TEXT)
ROWS = st.lists(
    st.builds(
        PromptRow,
        prompt=TEXT.filter(str.strip),
        negative_prompt=st.none() | TEXT,
        seed=st.none() | st.integers(0, 2**32 - 1),
        id=st.none() | st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=20),
        images=st.dictionaries(st.sampled_from(["image", "mask_image"]), TEXT, max_size=2),
        extra=st.dictionaries(st.sampled_from(["strength", "guidance_rescale"]), VALUES, max_size=2),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_the_same_rows_come_out_of_jsonl_csv_and_parquet(rows):
    documents = [row.model_dump(exclude_none=True) for row in rows]
    assert rows_of(jsonl(*documents), "jsonl") == rows
    assert rows_of(csv_of(rows), "csv") == rows
    assert rows_of(parquet_of(rows), "parquet") == rows


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["jsonl", "csv"]))
@example(b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "jsonl")
@example(b"[" * 100_000, "jsonl")
@example(b'{"prompt": "\\ud800"}', "jsonl")
@example(b'prompt\n"' + b"x" * 200_000, "csv")
@example(b"prompt\r1\r2\n", "csv")
def test_no_bytes_end_in_anything_but_bad_input_or_a_row_error(data, file_format):
    try:
        for _, parse in formats.records("prompts", io.BytesIO(data), file_format):
            try:
                parse()
            except RowError:
                continue
    except BadInput:
        pass


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damaged_parquet_ends_in_anything_but_bad_input_or_a_row_error(data):
    whole = parquet_of([PromptRow(prompt="a cat", seed=3), PromptRow(prompt="a dog", images={"image": "x.png"})])
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        for _, parse in formats.records("prompts", io.BytesIO(bytes(damaged)), "parquet"):
            try:
                parse()
            except RowError:
                continue
    except BadInput:
        pass


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_change_nothing():
    plain = b'{"prompt": "a"}\n{"prompt": "b"}\n'
    decorated = b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n   \r\n{"prompt": "b"}'
    assert rows_of(decorated, "jsonl") == rows_of(plain, "jsonl")
    assert rows_of(b'\xef\xbb\xbfprompt,seed\r\n"a, b",\r\n,\r\nc,2\r\n', "csv") == [
        PromptRow(prompt="a, b"),
        PromptRow(prompt="c", seed=2),
    ]


def test_a_line_separator_inside_a_prompt_does_not_end_the_row():
    assert rows_of('{"prompt": "a\u2028b"}\n'.encode(), "jsonl") == [PromptRow(prompt="a\u2028b")]
    assert rows_of(b'prompt\n"two\nlines"\n', "csv") == [PromptRow(prompt="two\nlines")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"prompt": "a"', "not JSON"),
        ('{"prompt": "a", "prompt": "b"}', "there twice"),
        ('{"prompt": "a", "seed": NaN}', "NaN is no number"),
        ('["a"]', "must be an object"),
        ('"a"', "must be an object"),
        ('{"promt": "a"}', 'did you mean "prompt"?'),
        ('{"prompt": "a", "negativ_prompt": "b"}', 'did you mean "negative_prompt"?'),
        ('{"prompt": 3}', "`prompt` must be text, not a whole number"),
        ('{"prompt": "a", "seed": 1.5}', "`seed` must be a whole number, not a number"),
        ('{"prompt": "a", "seed": true}', "`seed` must be a whole number, not true or false"),
        ('{"prompt": "a", "seed": -1}', "`seed` must be from 0"),
        ('{"prompt": "a", "seed": 4294967296}', "`seed` must be from 0 to 4294967295"),
        ('{"prompt": "a\\u0000b"}', "NUL"),
        ('{"prompt": "\\ud800"}', "surrogate"),
        ('{"prompt": ""}', "empty"),
        ('{"prompt": null}', "missing"),
        ('{"seed": 1}', "missing"),
        ('{"prompt": "%s"}' % ("x" * (MAX_CHARACTERS + 1)), "10,001 characters; at most 10,000"),
        ('{"prompt": "a", "id": ""}', "`id`"),
        ('{"prompt": "a", "id": "a\\u001b[31m"}', "printable"),
        ('{"prompt": "a", "images": "x.png"}', "must be an object of arguments"),
        ('{"prompt": "a", "images": {"__class__": "x.png"}}', "can't be an argument"),
        ('{"prompt": "a", "images": {"image": 1}}', "must be text"),
        ('{"prompt": "a", "extra": {"generator": 1}}', "set by Frazil itself"),
        ('{"prompt": "a", "extra": {"a b": 1}}', "can't be an argument"),
        ('{"prompt": "a", "extra": {"x": %s}}' % ("[" * 20 + "]" * 20), "nested"),
        ('{"prompt": "a", "extra": {"image": 1}, "images": {"image": "x"}}', "as a picture and as an extra"),
        ('{"prompt": "a", "negativePrompt": "b", "negative_prompt": "c"}', "twice"),
    ],
)
def test_a_row_that_can_t_be_used_says_what_is_wrong(line, words):
    with pytest.raises(RowError) as caught:
        rows_of(line.encode(), "jsonl")
    assert words in str(caught.value)


def test_bytes_that_are_not_utf8_are_named_with_their_column():
    with pytest.raises(RowError, match="byte 0xff at column 13"):
        rows_of(b'{"prompt": "\xff"}\n', "jsonl")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"promt,seed\na,1\n", "unknown column 'promt'; did you mean \"prompt\"?"),
        (b"seed\n1\n", "no column `prompt`"),
        (b"prompt,prompt\na,b\n", "there twice"),
        (b"prompt;seed\na;1\n", "separated by ';'"),
        (b'prompt\n"a" b\n', "line 2: not CSV"),
        (b"prompt\n\xff\n", "line 2: not UTF-8"),
        ("prompt\na\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_table_that_can_t_be_read_says_where(data, words):
    with pytest.raises(BadInput) as caught:
        rows_of(data, "csv")
    assert words in str(caught.value)


def test_a_csv_row_with_too_many_cells_says_how_many():
    with pytest.raises(RowError, match="3 cells where the header has 2"):
        rows_of(b"prompt,seed\na,1,2\n", "csv")


def test_cells_below_extra_are_json_where_they_read_as_json():
    (row,) = rows_of(b"prompt,extra.strength,extra.prompt_2,extra.flag\na,0.8,a red cat,true\n", "csv")
    assert row.extra == {"strength": 0.8, "prompt_2": "a red cat", "flag": True}


def test_missing_numbers_of_pandas_are_absent_and_floats_of_whole_numbers_are_seeds():
    table = pa.table({"prompt": ["a", "b"], "seed": [float("nan"), 7.0]})
    out = io.BytesIO()
    pq.write_table(table, out)
    assert [row.seed for row in rows_of(out.getvalue(), "parquet")] == [None, 7]


def test_a_line_without_an_end_is_not_read_into_memory():
    class Endless(io.RawIOBase):
        given = 0

        def readable(self):
            return True

        def seekable(self):
            return True

        def seek(self, offset, whence=0):
            return 0

        def readinto(self, buffer):
            self.given += len(buffer)
            assert self.given < 16 * formats.MAX_LINE_BYTES, "read on after the limit"
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

    with pytest.raises(BadInput, match="longer than 1,048,576 bytes"):
        list(formats.records("prompts", io.BufferedReader(Endless()), "jsonl"))


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.jsonl", b"", "jsonl"),
        ("a.NDJSON", b"", "jsonl"),
        ("a.csv", b"{", "csv"),
        ("a.parquet", b"", "parquet"),
        ("prompts", b'\xef\xbb\xbf\n {"prompt": 1}', "jsonl"),
        ("prompts.txt", b"id,prompt\n", "csv"),
        ("prompts", b"PAR1...", "parquet"),
    ],
)
def test_the_format_is_told_by_the_ending_and_else_by_the_beginning(name, data, expected):
    assert formats.format_of(name, io.BytesIO(data)) == expected


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl.gz", b"", "compressed"),
        ("a.json", b'[{"prompt": "a"}]', "one JSON list"),
        ("a.txt", b"a cat\na dog\n", "say jsonl, csv or parquet"),
        ("a", b"", "neither an ending"),
    ],
)
def test_a_format_that_can_t_be_told_is_asked_for(name, data, words):
    with pytest.raises(BadInput) as caught:
        formats.format_of(name, io.BytesIO(data))
    assert words in str(caught.value)


def test_a_picture_makes_an_empty_prompt_possible():
    assert row_of({"prompt": "", "images": {"image": "a.png"}}).prompt == ""


def test_an_error_never_carries_control_characters_of_the_file():
    with pytest.raises(RowError) as caught:
        row_of({"\x1b[2Jprompt": "a"})
    assert "\x1b" not in str(caught.value)
