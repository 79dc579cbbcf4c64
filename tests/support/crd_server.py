"""What an API server does with an object and a CRD, offline: defaults, structural validation, CEL rules, pruning refused.

Written from Kubernetes' documentation and apart from `frazil_jobs.api`: it knows the CRD's YAML only.
"""

from __future__ import annotations

import copy
import functools
import re
from typing import Any

import celpy
from celpy.adapter import json_to_cel

_PYTHON_END = re.compile(r"\$$")
"""In Go `$` is the end; in Python it is also before a last line break."""
_TYPES = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}


def admit(crd: dict[str, Any], new: dict[str, Any], old: dict[str, Any] | None = None) -> list[str]:
    """What is wrong with an object (or with a change of one); empty when it's admitted."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    new = defaulted(schema, copy.deepcopy(new))
    old = None if old is None else defaulted(schema, copy.deepcopy(old))
    problems = list(_structure(schema, new, ""))
    return problems or list(_rules(schema, new, old, ""))


def defaulted(schema: dict[str, Any], value: Any) -> Any:
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in value and value[name] is None:
                del value[name]
            if name not in value and "default" in inner:
                value[name] = copy.deepcopy(inner["default"])
            if name in value:
                value[name] = defaulted(inner, value[name])
    elif isinstance(value, list) and "items" in schema:
        return [defaulted(schema["items"], item) for item in value]
    return value


def _structure(schema: dict[str, Any], value: Any, path: str) -> Any:
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{path}: neither number nor text"
            return
        schema = {**schema, "type": "string" if isinstance(value, str) else "integer"}
    kind = schema["type"]
    if not isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, bool)):
        yield f"{path}: not {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not in {schema['enum']}"
    if kind == "string":
        if "pattern" in schema and not re.search(_PYTHON_END.sub(r"\\Z", schema["pattern"]), value):
            yield f"{path}: pattern"
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9):
            yield f"{path}: length"
    if kind == "integer" and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: range"
    if kind == "array":
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9):
            yield f"{path}: items"
        for index, item in enumerate(value):
            yield from _structure(schema["items"], item, f"{path}[{index}]")
    if kind == "object":
        yield from _object(schema, value, path)


def _object(schema: dict[str, Any], value: dict[str, Any], path: str) -> Any:
    for name in schema.get("required", []):
        if name not in value:
            yield f"{path}.{name}: required"
    if len(value) > schema.get("maxProperties", 10**9):
        yield f"{path}: properties"
    for name, inner in value.items():
        if name in schema.get("properties", {}):
            yield from _structure(schema["properties"][name], inner, f"{path}.{name}")
        elif "additionalProperties" in schema:
            yield from _structure(schema["additionalProperties"], inner, f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields") and path != ".metadata":
            yield f"{path}.{name}: unknown field"


def _rules(schema: dict[str, Any], new: Any, old: Any, path: str) -> Any:
    for entry in schema.get("x-kubernetes-validations", []):
        if "oldSelf" in entry["rule"] and old is None:
            continue
        values = {"self": json_to_cel(new)} | ({} if old is None else {"oldSelf": json_to_cel(old)})
        if not program(entry["rule"]).evaluate(values):
            yield f"{path}: {entry['message']}"
    if isinstance(new, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in new:
                before = old.get(name) if isinstance(old, dict) else None
                yield from _rules(inner, new[name], before, f"{path}.{name}")
    elif isinstance(new, list):
        for index, item in enumerate(new):
            yield from _rules(schema["items"], item, None, f"{path}[{index}]")


@functools.cache
def program(rule: str) -> Any:
    """A rule, compiled."""
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def default_problems(schema: dict[str, Any]) -> list[str]:
    """What the API server has against a CRD's defaults: it tries each as it stands, before defaults within are filled in."""
    problems = []
    for path, node in every_schema(schema):
        if "default" in node:
            value = node["default"]
            try:
                problems += [*_structure(node, value, path), *_rules(node, value, value, path)]
            except celpy.CELEvalError as error:
                problems.append(f"{path}: {error}")
    return problems


def every_schema(schema: dict[str, Any], path: str = "") -> Any:
    """Each schema node with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from every_schema(inner, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from every_schema(schema[word], f"{path}[]")
