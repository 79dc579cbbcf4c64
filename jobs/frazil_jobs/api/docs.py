"""The API reference, docs/api.md, generated from the types: `python -m frazil_jobs.api.docs` writes or `--check`s
it."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frazil_jobs.api import conditions
from frazil_jobs.api.base import API_VERSION, PATTERN_WORDS, ApiModel
from frazil_jobs.api.crd import write_or_check
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.schema import Schema, schema_of
from frazil_jobs.api.trainingjob import TrainingJob

FOLDER = Path(__file__).parents[3] / "docs"
_LIMITS = {
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
}


def reference() -> str:
    """The whole page."""
    parts = [
        "# API reference",
        "",
        f"Generated from the types in `jobs/frazil_jobs/api` by `make generated`. Group and version: `{API_VERSION}`.",
        "Decimals are written as text, since Kubernetes has no exact ones. `kubectl explain generationjob.spec` shows",
        "the same meanings. A rule is tried by the API server and by `frazil run` and `frazil plan`, in the same words;",
        "one with `oldSelf` is about changes of a job that exists.",
    ]
    for kind in (GenerationJob, TrainingJob):
        parts += ["", f"## {kind.__name__}", "", " ".join((kind.__doc__ or "").split())]
        for section in ("spec", "status"):
            info = kind.model_fields[section]
            parts += _section(section, _schema(info.annotation))
    parts += ["", "## Conditions", "", "| type | reasons |", "|---|---|"]
    parts += [f"| {kind} | {', '.join(reasons)} |" for kind, reasons in conditions.REASONS.items()]
    return "\n".join(parts) + "\n"


def _schema(annotation: Any) -> Schema:
    model = annotation if isinstance(annotation, type) else next(a for a in annotation.__args__ if a is not type(None))
    assert issubclass(model, ApiModel)
    return schema_of(model)


def _section(path: str, schema: Schema) -> Iterator[str]:
    yield from ("", f"### `{path}`", "", str(schema["description"]), "")
    yield from ("| field | type | default | meaning |", "|---|---|---|---|")
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        default = "**required**" if name in required else _default(field)
        yield f"| `{name}` | {_cell(_type(field))} | {_cell(default)} | {_cell(_meaning(field))} |"
    rules = schema.get("x-kubernetes-validations", [])
    if rules:
        yield from ("", "Rules:", "")
        yield from (f"- {rule['message']} (`{rule['rule']}`)" for rule in rules)
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        if "properties" in inner:
            yield from _section(f"{path}.{name}{'[]' if 'items' in field else ''}", inner)


def _meaning(field: Schema) -> str:
    """The whole description; of a part that has a table of its own, the first sentence."""
    text = str(field["description"])
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0] if "properties" in field.get("items", field) else text


def _type(field: Schema) -> str:
    if "enum" in field:
        return " \\| ".join(str(value) for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return f"number or text: {PATTERN_WORDS[field['pattern']]}"
    kind = str(field["type"])
    if kind == "array":
        kind = f"list of {_type(field['items'])}"
    elif kind == "object" and "additionalProperties" in field:
        kind = f"map to {_type(field['additionalProperties'])}"
    limits = [
        "not empty" if name in ("minLength", "minItems") and field[name] == 1 else text.format(f"{field[name]:,}")
        for name, text in _LIMITS.items()
        if name in field
    ]
    asked = PATTERN_WORDS.get(str(field.get("pattern")))
    return ", ".join([kind, *([asked] if asked else []), *limits])


def _default(field: Schema) -> str:
    """A part that is an object is shown field by field in a table of its own."""
    return f"`{json.dumps(field['default'])}`" if "default" in field and field.get("type") != "object" else ""


def _cell(text: str) -> str:
    return text if "\\|" in text else text.replace("|", "\\|")


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    return write_or_check(FOLDER, {"api.md": reference()}, check=parser.parse_args().check)


if __name__ == "__main__":
    sys.exit(main())
