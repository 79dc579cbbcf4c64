"""`python -m frazil_operator.chart.schema [--check]`: makes charts/values.schema.json of the types of the values."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from frazil_operator.chart.values import Values

TARGET = Path(__file__).resolve().parents[3] / "charts" / "values.schema.json"


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
    """The file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write it, or say whether it's fresh."""
    if "--check" in sys.argv[1:]:
        fresh = TARGET.exists() and TARGET.read_text(encoding="utf-8") == text()
        if not fresh:
            print("charts/values.schema.json is not fresh: run `make generated`", file=sys.stderr)
        return 0 if fresh else 1
    TARGET.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
