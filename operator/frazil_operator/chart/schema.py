"""`python -m frazil_operator.chart.schema [--check]`: makes charts/values.schema.json and docs/values.md of the types of the
values."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from frazil_operator.chart.values import Values

ROOT = Path(__file__).resolve().parents[3]
TARGET = ROOT / "charts" / "values.schema.json"
REFERENCE = ROOT / "docs" / "values.md"
DEFAULTS = ROOT / "charts" / "values.yaml"
_NONE = object()


def schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12): every value described, none unknown."""
    found = Values.model_json_schema(by_alias=True)
    _tidy(found)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _tidy(part: Any) -> None:
    """Without pydantic's titles; nullable as a type list, which every validator reads alike."""
    if isinstance(part, list):
        for item in part:
            _tidy(item)
    if not isinstance(part, dict):
        return
    if isinstance(part.get("title"), str):
        del part["title"]
    for item in part.values():
        _tidy(item)


def text() -> str:
    """The schema's file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def reference() -> str:
    """The table for people: every value with its type, default and meaning."""
    found = schema()
    file = yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))
    defaults = Values.model_validate(file).model_dump(mode="json", by_alias=True)
    lines = [
        "# Values of the chart",
        "",
        "Made from `operator/frazil_operator/chart/values.py`. `[]` stands for each element of a list, which",
        "has the default where it leaves the value out.",
        "",
        "| value | type | default | what it is |",
        "|---|---|---|---|",
        *_rows("", found, found.get("$defs", {}), defaults),
    ]
    return "\n".join(lines) + "\n"


def _rows(path: str, part: Mapping[str, Any], definitions: Mapping[str, Any], defaults: Any) -> Iterator[str]:
    """`defaults`: of `part`, or None where it has none of its own."""
    for name, field in part.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        inner = _resolved(field, definitions)
        item = _resolved(inner.get("items") or {}, definitions)
        told = field.get("description") or inner.get("description") or ""
        value = defaults.get(name, _NONE) if isinstance(defaults, Mapping) else field.get("default", _NONE)
        if "properties" not in inner or value is None:
            told_below = value is _NONE or "properties" in item
            default = "" if told_below else f"`{json.dumps(value, ensure_ascii=False)}`"
            cells = (f"`{where}`", _kind(inner), default, " ".join(told.split()))
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        if "properties" in inner:
            yield from _rows(where, inner, definitions, value)
        if "properties" in item:
            yield from _rows(f"{where}[]", item, definitions, None)


def _resolved(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """A field with what it refers to, or what it may be beside null."""
    options = [one for one in field.get("anyOf", ()) if one.get("type") != "null"]
    found = options[0] if len(options) == 1 else field
    reference = found.get("$ref")
    return {**definitions[reference.rpartition("/")[2]], **found} if reference else found


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(map(str, field["enum"]))
    return {"array": "list", "object": "map", "integer": "whole number"}.get(
        str(field.get("type")), str(field.get("type"))
    )


def main() -> int:
    """Write them, or say whether they are fresh."""
    code = 0
    for path, wanted in ((TARGET, text()), (REFERENCE, reference())):
        if "--check" not in sys.argv[1:]:
            path.write_text(wanted, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != wanted:
            print(f"{path.relative_to(ROOT)} is not fresh: run `make generated`", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
