"""What every type of the API shares: camelCase in YAML, no unknown fields, names and decimals as checked strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "frazil.dev"
VERSION = "v1alpha1"
API_VERSION: Final = "frazil.dev/v1alpha1"

DECIMAL_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

Decimal = Annotated[str, Field(pattern=DECIMAL_PATTERN, max_length=20)]
"""A number written as text, as Kubernetes asks of decimals: "5.0"."""
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=253)]
Uri = Annotated[str, Field(min_length=1, max_length=2048)]


@dataclass(frozen=True)
class Rule:
    """One validation rule in CEL, on the type that carries it: `self` is the object, `oldSelf` what it was before.

    The API server evaluates it (x-kubernetes-validations), and so does `rules.py` when a file is read.
    """

    rule: str
    message: str
    field: str | None = None
    """The field below the type that a person has to change, in camelCase."""

    @property
    def is_transition(self) -> bool:
        """Whether it compares with the object before a change."""
        return "oldSelf" in self.rule


class ApiModel(BaseModel):
    """A part of a job: snake_case in Python, camelCase in YAML, nothing unknown, nothing changed after it was read."""

    RULES: ClassVar[tuple[Rule, ...]] = ()

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )
