"""What is wrong with a document that should be a job, told to a person: the field as YAML has it, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from frazil_jobs.api.base import PATTERN_WORDS, ApiModel
from frazil_jobs.api.rules import violations

_TYPE_WORDS = {
    "int_type": "must be a whole number, without quotes",
    "bool_type": "must be true or false, without quotes",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    field: str
    message: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" + (f" ({self.remedy})" if self.remedy else "")


def without_nulls(annotation: Any, value: Any) -> Any:
    """`value` without the fields that are null, which the API server takes as not set. Free-form maps stay as they
    are."""
    model = _model_in(annotation)
    if model is not None and isinstance(value, list):
        return [without_nulls(model, item) for item in value]
    if model is None or not isinstance(value, dict):
        return value
    fields = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    return {key: without_nulls(fields.get(key), inner) for key, inner in value.items() if inner is not None}


def problems_of(kind: type[ApiModel], document: Any, error: ValidationError) -> list[Problem]:
    """All that is wrong: each error of structure, and each broken rule of the parts whose structure is right."""
    errors = error.errors(include_url=False)
    found = [_structural(kind, one) for one in errors if not _is_other_attempt(one)]
    return list(dict.fromkeys([*found, *_broken_rules(kind, document, "")]))


def rule_problems(job: ApiModel) -> list[Problem]:
    """The broken rules of an object whose structure is right."""
    return [Problem(violation.field or "the job", violation.rule.message) for violation in violations(job)]


def _broken_rules(model: type[ApiModel], value: Any, path: str) -> Iterator[Problem]:
    """The broken rules of the largest parts of `value` whose structure is right."""
    try:
        part = model.model_validate(value, strict=True)
    except ValidationError:
        if not isinstance(value, dict):
            return
        for name, info in model.model_fields.items():
            alias = info.alias or name
            inner = _model_in(info.annotation)
            if inner is not None and isinstance(value.get(alias), dict):
                yield from _broken_rules(inner, value[alias], f"{path}.{alias}" if path else alias)
        return
    for violation in violations(part):
        field = ".".join(piece for piece in (path, violation.field) if piece)
        yield Problem(field or "the job", violation.rule.message)


def _structural(kind: type[ApiModel], error: Any) -> Problem:
    """One error of pydantic's."""
    location = list(error["loc"])
    if _is_tag(location[-1]):
        location.pop()
    path, given, context = _path(location), error.get("input"), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            known = _fields_at(kind, location[:-1])
            close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
            return Problem(
                path,
                "unknown field",
                f"did you mean {close[0]!r}?" if close else f"there is {', '.join(sorted(known))}",
            )
        case "missing":
            return Problem(path, "is required", "see examples/ for jobs that work")
        case "string_type" if isinstance(given, int | float):
            text = str(given).lower() if isinstance(given, bool) else str(given)
            return Problem(path, "must be text", f'write it in quotes: "{text}"')
        case "string_type":
            return Problem(path, "must be text")
        case "string_pattern_mismatch":
            pattern = str(context["pattern"])
            return Problem(path, f"is {_short(given)}", f"give {PATTERN_WORDS.get(pattern, f'what matches {pattern}')}")
        case "literal_error":
            choices = [part.strip(" '") for part in str(context["expected"]).replace(" or ", ",").split(",")]
            close = difflib.get_close_matches(str(given), choices, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else None
            return Problem(path, f"is {_short(given)}; it must be {context['expected']}", hint)
        case "too_short" if not given:
            return Problem(path, "is empty", f"give at least {context['min_length']}, or leave it out")
        case kind_of_error if kind_of_error in _TYPE_WORDS:
            return Problem(path, f"{_TYPE_WORDS[kind_of_error]}; it is {_short(given)}")
        case _:
            message = str(error["msg"]).removeprefix("Input ").removeprefix("Value ")
            return Problem(path, f"{message[0].lower()}{message[1:]}; it is {_short(given)}")


def _is_tag(part: Any) -> bool:
    """Whether pydantic put this into the location, not the document: the member of a union that was tried."""
    return part in ("str", "int", "constrained-str", "constrained-int")


def _is_other_attempt(error: Any) -> bool:
    """Whether pydantic tried a number in place of text, or the reverse: of such a field it tells both attempts."""
    last, given = error["loc"][-1], error.get("input")
    is_number = isinstance(given, int) and not isinstance(given, bool)
    return _is_tag(last) and last.endswith("int") != is_number


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _path(location: list[Any]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text or "the job"


def _fields_at(kind: type[ApiModel], location: list[Any]) -> list[str]:
    """The names of the fields of the object at `location`."""
    model: type[ApiModel] = kind
    for part in location:
        if isinstance(part, int):
            continue
        info = next((info for name, info in model.model_fields.items() if part in (info.alias, name)), None)
        inner = None if info is None else _model_in(info.annotation)
        if inner is None:
            return []
        model = inner
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_in(annotation: Any) -> type[ApiModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)
