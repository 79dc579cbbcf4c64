"""A row of a prompt file, and what is pinned of the whole file. Knows nothing of where a file lies or how it's written.

Every way in (jsonl, csv, parquet, inline) ends in `row_of`, so that the same row means the same whatever the format.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_ROWS = 1_000_000
"""Rows of one prompt file: the file names of the pictures have six digits."""
MAX_CHARACTERS = 10_000
"""Characters of one prompt. No text encoder reads more than a few hundred tokens of it."""
MAX_ID_CHARACTERS = 256
MAX_ARGUMENTS = 32
"""Pictures, or extra arguments, of one row."""
MAX_NESTING = 8
"""Lists and objects inside each other in one extra argument."""
SEEDS = 2**32

FileFormat = Literal["inline", "jsonl", "csv", "parquet"]

FIELDS = ("prompt", "negative_prompt", "seed", "id", "images", "extra")
_SPELLINGS = {name: name for name in FIELDS} | {"negativePrompt": "negative_prompt"}
_GROUPS = ("images", "extra")

RESERVED_ARGUMENTS = frozenset(
    {
        "prompt",
        "negative_prompt",
        "generator",
        "latents",
        "num_images_per_prompt",
        "num_videos_per_prompt",
        "num_waveforms_per_prompt",
        "num_inference_steps",
        "output_type",
        "return_dict",
        "callback",
        "callback_steps",
        "callback_on_step_end",
        "callback_on_step_end_tensor_inputs",
        "height",
        "width",
        "num_frames",
    }
)
"""Arguments of a pipeline call that Frazil sets itself: from other fields of the row, or from the job."""


class PromptRow(BaseModel):
    """One prompt and what belongs to it alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    negative_prompt: str | None = None
    seed: int | None = Field(default=None, ge=0, lt=SEEDS)
    """Takes the place of the job's seed plus the prompt's index."""
    images: dict[str, str] = Field(default_factory=dict)
    """Pipeline argument (`image`, `mask_image`, `control_image`) to the URI of a picture; in a task, to its file below
    the spool's `input` folder."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of this row's pipeline call."""
    id: str | None = None
    """A name that the person gave, unique in the file; goes into the manifest."""


class PromptsPin(BaseModel):
    """What was found when the prompts were inspected: of constant size, whatever the number of prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the file's bytes; for inline prompts of their JSON."""
    count: int = Field(ge=1, le=MAX_ROWS)
    shards: int = Field(ge=1)
    per_shard: int = Field(ge=1)
    format: FileFormat
    size: int = Field(default=0, ge=0)
    """Bytes."""

    def span(self, shard: int) -> tuple[int, int]:
        """The first prompt of `shard` and how many it has."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} of {self.shards}")
        first = shard * self.per_shard
        return first, min(self.per_shard, self.count - first)


class RowError(ValueError):
    """What is wrong with one row, without saying where the row is."""


def row_of(mapping: Mapping[Any, Any]) -> PromptRow:
    """The row that `mapping` (a JSON object, a CSV line, a row of a table) says. Raises RowError.

    Absent and null are the same. Dotted names (`images.mask_image`, `extra.strength`) are for formats without objects.
    """
    found: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    for name, value in mapping.items():
        if value is None:
            continue
        field, _, argument = field_of(name).partition(".")
        if argument:
            target, name_there = groups[field], argument
        elif field in groups:
            if not isinstance(value, Mapping):
                raise RowError(f"`{field}` must be an object of arguments, not {_kind(value)}")
            for key, inner in value.items():
                _set(groups[field], str(key), inner, label=f"{field}.{key}")
            continue
        else:
            target, name_there = found, field
        _set(target, name_there, value, label=str(name))
    return _checked(found, images=groups["images"], extra=groups["extra"])


def field_of(name: object) -> str:
    """The field, or `group.argument`, that a column or key means. Raises RowError naming the nearest one there is."""
    if not isinstance(name, str):
        raise RowError(f"the name {name!r} is not text")
    group, dot, argument = name.partition(".")
    if dot and group in _GROUPS and argument:
        return name
    if name in _SPELLINGS:
        return _SPELLINGS[name]
    raise RowError(f"unknown field {_quoted(name)}; {nearest(name, _SPELLINGS) or 'known are ' + ', '.join(FIELDS)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean "negativePrompt"?`, or nothing when no name is near."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.7)
    return f'did you mean "{lowered[close[0]]}"?' if close else ""


def _set(target: dict[str, Any], name: str, value: Any, *, label: str) -> None:
    if name in target:
        raise RowError(f"`{label}` is given twice")
    target[name] = value


def _checked(found: dict[str, Any], *, images: dict[str, Any], extra: dict[str, Any]) -> PromptRow:
    pictures = {
        _argument("images", name): _text(f"images.{name}", uri) for name, uri in images.items() if uri is not None
    }
    arguments = {
        _argument("extra", name): _plain(f"extra.{name}", value) for name, value in extra.items() if value is not None
    }
    if both := sorted(pictures.keys() & arguments.keys()):
        raise RowError(f"`{both[0]}` is given as a picture and as an extra argument")
    for group, values in (("images", pictures), ("extra", arguments)):
        if len(values) > MAX_ARGUMENTS:
            raise RowError(f"`{group}` has {len(values)} arguments; at most {MAX_ARGUMENTS}")
    if "prompt" not in found:
        raise RowError("`prompt` is missing")
    prompt = _text("prompt", found["prompt"])
    if not prompt.strip() and not pictures:
        raise RowError("`prompt` is empty")
    negative = found.get("negative_prompt")
    return PromptRow(
        prompt=prompt,
        negative_prompt=None if negative is None else _text("negative_prompt", negative),
        seed=_seed(found.get("seed")),
        id=_id(found.get("id")),
        images=pictures,
        extra=arguments,
    )


def _text(name: str, value: Any, *, limit: int = MAX_CHARACTERS) -> str:
    if not isinstance(value, str):
        raise RowError(f"`{name}` must be text, not {_kind(value)}")
    if len(value) > limit:
        raise RowError(f"`{name}` has {len(value):,} characters; at most {limit:,}")
    if "\0" in value:
        raise RowError(f"`{name}` holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"`{name}` holds half of a surrogate pair, which is no character") from None
    return value


def _seed(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise RowError(f"`seed` must be a whole number, not {_kind(value)}")
    if not 0 <= value < SEEDS:
        raise RowError(f"`seed` must be from 0 to {SEEDS - 1}")
    return value


def _id(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64:
        value = str(value)
    if value is None:
        return None
    text = _text("id", value, limit=MAX_ID_CHARACTERS)
    if not text or not text.isprintable():
        raise RowError("`id` must be one or more printable characters")
    return text


def _argument(group: str, name: str) -> str:
    if not name.isidentifier() or not name.isascii() or name.startswith("_") or len(name) > 64:
        raise RowError(f"`{group}` names {_quoted(name)}, which can't be an argument of a pipeline")
    if name in RESERVED_ARGUMENTS:
        raise RowError(f"`{group}.{name}` is set by Frazil itself, from the row or from spec.sampling")
    return name


def _plain(name: str, value: Any, depth: int = 0) -> Any:
    """`value` if it is plain JSON: finite numbers, text, booleans, null, lists and objects of these."""
    if depth > MAX_NESTING:
        raise RowError(f"`{name}` is nested more than {MAX_NESTING} deep")
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise RowError(f"`{name}` must be a finite number")
    if isinstance(value, int) and abs(value) >= 2**64:
        raise RowError(f"`{name}` is a whole number of more than 64 bits")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(name, item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {_text(f"{name} (key)", key): _plain(name, item, depth + 1) for key, item in value.items()}
    raise RowError(f"`{name}` must be plain JSON, not {_kind(value)}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    for types, word in (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (str, "text"),
        (bytes, "bytes"),
        (Mapping, "an object"),
        (list | tuple, "a list"),
    ):
        if isinstance(value, types):
            return word
    return f"a {type(value).__name__}"


def _quoted(name: str) -> str:
    return repr(name[:60] + "…" if len(name) > 60 else name)
