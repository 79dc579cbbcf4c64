"""What every type of the API shares: camelCase in YAML, no unknown fields, names and decimals as checked strings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "frazil.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

DECIMAL_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

Decimal = Annotated[str, Field(pattern=DECIMAL_PATTERN, max_length=20)]
"""A number written as text, as Kubernetes asks of decimals: "5.0"."""
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=253)]
Uri = Annotated[str, Field(min_length=1, max_length=2048)]


class ApiModel(BaseModel):
    """A part of a job: snake_case in Python, camelCase in YAML, nothing unknown, nothing changed after it was read."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )
