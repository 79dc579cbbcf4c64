"""Reads YAML as the API server will: each key once, JSON's values only, times as text, nothing endless.

PyYAML alone keeps the last of two equal keys without a word, makes dates of text, and follows anchors into themselves.
"""

from __future__ import annotations

import math
from typing import Any

import yaml

from frazil_jobs.base.exits import BadConfiguration

_MAX_VALUES = 200_000
"""Values of a document with its anchors followed; the largest job has a few thousand."""
_MAX_DEPTH = 40
_INT64 = 2**63


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, strict about keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping; raises for a key that is there twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(text: str, *, name: str) -> list[Any]:
    """The documents in `text` that aren't empty. Raises BadConfiguration that names `name`."""
    try:
        found = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadConfiguration(
            f"{name} is not YAML: {' '.join(str(error).split())}", remedy="see examples/ for jobs that work"
        ) from None
    for document in found:
        check_plain(document, name=name)
    return found


def check_plain(document: Any, *, name: str) -> None:
    """Raise BadConfiguration for what JSON and the API server don't have: keys that aren't text, bytes, not-a-number,
    …"""
    stack: list[tuple[Any, str, int]] = [(document, "", 0)]
    left = _MAX_VALUES
    while stack:
        value, path, depth = stack.pop()
        left -= 1
        if left < 0 or depth > _MAX_DEPTH:
            raise BadConfiguration(f"{name} holds too much, or is nested too deep", field=path[:60] or None)
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise BadConfiguration(f"the key {key!r} is not text", field=path or None, remedy=f'write "{key}"')
                _check_leaf(key, path)
                stack.append((inner, f"{path}.{key}" if path else key, depth + 1))
        elif isinstance(value, list):
            stack.extend((inner, f"{path}[{index}]", depth + 1) for index, inner in enumerate(value))
        else:
            _check_leaf(value, path)


def _check_leaf(value: Any, path: str) -> None:
    problem, remedy = None, "write it as text, in quotes"
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            problem, remedy = "holds half a character", "write the character itself, in UTF-8"
    elif isinstance(value, float):
        problem = None if math.isfinite(value) else "is no number that JSON has"
    elif isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            problem, remedy = "is larger than 64 bits hold", "choose a smaller number"
    elif value is not None:
        problem = f"is {type(value).__name__}, which JSON doesn't have"
    if problem:
        raise BadConfiguration(problem, field=path or None, remedy=remedy)
