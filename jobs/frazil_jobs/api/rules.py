"""Evaluates the rules of a job offline, with the same CEL expressions that the API server gets.

A file is therefore refused by `frazil run` for the same reasons, in the same words, as by `kubectl apply`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from frazil_jobs.api.base import ApiModel, Rule


@dataclass(frozen=True)
class Violation:
    """One rule that does not hold."""

    path: str
    """The object that carries it: spec.parallelism."""
    rule: Rule

    @property
    def field(self) -> str:
        """The field to change: spec.parallelism.pipeline."""
        inner = self.rule.field
        return ".".join(part for part in (self.path, inner) if part)

    def __str__(self) -> str:
        return f"{self.field}: {self.rule.message}"


def violations(new: ApiModel, old: ApiModel | None = None) -> list[Violation]:
    """The rules that `new` breaks; with `old`, also those on what may change."""
    return list(_check(new, old, ""))


def _check(new: ApiModel, old: ApiModel | None, path: str) -> Iterator[Violation]:
    values = _values(new, old) if new.RULES else {}
    for rule in new.RULES:
        if not (rule.is_transition and old is None) and not _holds(rule.rule, values):
            yield Violation(path, rule)
    for name, info in type(new).model_fields.items():
        alias = info.alias or name
        value, before = getattr(new, name), None if old is None else getattr(old, name)
        inner = f"{path}.{alias}" if path else alias
        if isinstance(value, ApiModel):
            yield from _check(value, before if isinstance(before, ApiModel) else None, inner)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, ApiModel):
                    yield from _check(item, None, f"{inner}[{index}]")


def _values(new: ApiModel, old: ApiModel | None) -> dict[str, Any]:
    """What a rule may speak of."""
    from celpy.adapter import json_to_cel

    values = {"self": json_to_cel(new.document())}
    if old is not None:
        values["oldSelf"] = json_to_cel(old.document())
    return values


def _holds(rule: str, values: dict[str, Any]) -> bool:
    """Whether a rule holds. One that can't be evaluated doesn't, as on the API server."""
    from celpy.evaluation import CELEvalError

    try:
        return bool(_program(rule).evaluate(values))
    except CELEvalError:
        return False


@cache
def _program(rule: str) -> Any:
    import celpy

    environment = celpy.Environment()
    return environment.program(environment.compile(rule))
