"""The structural schema of a type: what a CustomResourceDefinition may hold (no $ref, no anyOf, no title), with its
rules.

Constraints and descriptions are pydantic's own; a part that is an object is described by its type, then by its field.
The default of a part that is an object is written out whole: the API server tries a default against the part's rules as
it stands, before it fills in the defaults within.
"""

from __future__ import annotations

import typing
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from frazil_jobs.api.base import ApiModel

Schema = dict[str, Any]
_KEPT = (
    *("type", "format", "description", "enum", "default", "pattern"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties"),
)
_STATUS_LISTS = {"conditions": "type", "jobs": "name"}
"""Lists of a status that are merged by a key."""


def schema_of(model: type[ApiModel], *, skip: frozenset[str] = frozenset()) -> Schema:
    """The structural schema of `model`, without the fields in `skip`."""
    properties: Schema = {}
    required: list[str] = []
    for name, info in model.model_fields.items():
        if name in skip:
            continue
        alias = info.alias or name
        properties[alias] = _field_schema(alias, info)
        if info.is_required():
            required.append(alias)
    schema: Schema = {"type": "object", "description": _text(model.__doc__), "properties": properties}
    if required:
        schema["required"] = required
    if model.RULES:
        schema["x-kubernetes-validations"] = [validation(rule) for rule in model.RULES]
    return schema


def validation(rule: Any) -> Schema:
    """A rule as the API server takes it."""
    message = f"{rule.field}: {rule.message}" if rule.field else rule.message
    return {"rule": rule.rule, "message": message}


def _field_schema(alias: str, info: FieldInfo) -> Schema:
    annotation: Any = info.annotation
    if info.metadata:
        annotation = Annotated[(annotation, *info.metadata)]
    schema = _type_schema(annotation)
    schema["description"] = " ".join(filter(None, (schema.get("description"), _text(info.description))))
    extra = info.json_schema_extra
    if isinstance(extra, dict):
        schema.update({key: value for key, value in extra.items() if key in _KEPT})
    if (default := _default(info)) is not PydanticUndefined:
        schema["default"] = default
    if alias in _STATUS_LISTS and schema["type"] == "array" and "properties" in schema["items"]:
        schema["x-kubernetes-list-type"] = "map"
        schema["x-kubernetes-list-map-keys"] = [_STATUS_LISTS[alias]]
    elif schema.get("type") == "array":
        schema["x-kubernetes-list-type"] = "atomic"
    return schema


def _default(info: FieldInfo) -> Any:
    """What the API server fills in, or PydanticUndefined."""
    if info.default_factory is not None:
        value = info.get_default(call_default_factory=True)
        if isinstance(value, ApiModel):
            return _written_out(value)
        return value if value else PydanticUndefined
    return PydanticUndefined if info.default is None else info.default


def _written_out(model: ApiModel) -> Schema:
    """All defaults of a part; its lists and maps are empty by default, and then not there."""
    found: Schema = {}
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, ApiModel):
            found[info.alias or name] = _written_out(value)
        elif value not in (None, [], {}):
            found[info.alias or name] = value
    return found


def _type_schema(annotation: Any) -> Schema:
    """The schema of one type, without description and default."""
    metadata: tuple[Any, ...] = ()
    inner = annotation
    if get_origin(annotation) is Annotated:
        inner, *rest = get_args(annotation)
        metadata = tuple(rest)
    if get_origin(inner) in (Union, UnionType):
        members = [member for member in get_args(inner) if member is not NoneType]
        if len(members) == 1:
            return _type_schema(Annotated[(members[0], *metadata)] if metadata else members[0])
        parts = [_constraints(member) for member in members]
        if {part["type"] for part in parts} == {"string", "integer"}:
            limits = {key: value for part in parts for key, value in part.items() if key not in ("type", "format")}
            return {"x-kubernetes-int-or-string": True, **limits}
        raise TypeError(f"a CRD has no union such as {inner}")
    if isinstance(inner, type) and issubclass(inner, ApiModel):
        return schema_of(inner)
    if get_origin(inner) is list:
        return {**_constraints(annotation), "type": "array", "items": _type_schema(get_args(inner)[0])}
    if get_origin(inner) is dict:
        return _map_schema(get_args(inner)[1], _constraints(annotation))
    return _constraints(annotation)


def _map_schema(value: Any, constraints: Schema) -> Schema:
    if value is typing.Any:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    kept = {"maxProperties": constraints["maxProperties"]} if "maxProperties" in constraints else {}
    return {"type": "object", "additionalProperties": _type_schema(value), **kept}


def _constraints(annotation: Any) -> Schema:
    """What pydantic says of a leaf."""
    found = TypeAdapter(annotation).json_schema()
    if "const" in found:
        found["enum"] = [found["const"]]
    kept = {key: value for key, value in found.items() if key in _KEPT and key not in ("description", "default")}
    if kept.get("type") == "integer":
        kept.setdefault("format", "int64")
    return kept


def _text(text: str | None) -> str:
    """One paragraph, without the line breaks of the source."""
    return " ".join((text or "").split())
