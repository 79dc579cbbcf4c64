"""What every type of the API shares: camelCase in YAML, no unknown fields, names and decimals as checked strings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "frazil.dev"
VERSION = "v1alpha1"
API_VERSION: Final = "frazil.dev/v1alpha1"

DECIMAL_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
SIGNED_DECIMAL_PATTERN = r"^-?[0-9]{1,9}(\.[0-9]{1,9})?$"
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
QUANTITY_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|Pi|m|k|M|G|T|P)?$"
CLASS_PATTERN = r"^[A-Z][A-Za-z0-9]*$"
FOLDER_PATTERN = r"^\.?[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]*(/\.?[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]*)*$"
MOUNT_PATTERN = r"^(/\.?[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]*)+$"
KEY_PATTERN = r"^[-._A-Za-z0-9]+$"
RESOURCE_PATTERN = r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$"
VARIABLE_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
PSNR_PATTERN = r"^([0-9]{1,3}(\.[0-9]{1,3})?|inf)$"

PATTERN_WORDS: Final[dict[str, str]] = {
    DECIMAL_PATTERN: 'a decimal number of 0 or more, such as "5.0"',
    SIGNED_DECIMAL_PATTERN: 'a decimal number, such as "0.8" or "-1.0"',
    LABEL_PATTERN: "lower-case letters, digits and -, as in `my-name`",
    NAME_PATTERN: "lower-case letters, digits, - and ., as in `my-name`",
    LABEL_VALUE_PATTERN: "letters, digits, -, _ and ., beginning and ending with a letter or digit",
    LABEL_KEY_PATTERN: "the name of a label, such as `topology.kubernetes.io/rack`",
    QUANTITY_PATTERN: "a quantity as Kubernetes writes it, such as 8Gi or 500m",
    CLASS_PATTERN: "the name of a class, such as EulerDiscreteScheduler",
    FOLDER_PATTERN: "a relative path of plain names, such as `team/run-1`, without ..",
    MOUNT_PATTERN: "an absolute path of plain names, such as `/data`, without ..",
    KEY_PATTERN: "letters, digits, -, _ and ., as in `prompts.jsonl`",
    RESOURCE_PATTERN: "a resource of a node, such as nvidia.com/gpu",
    VARIABLE_PATTERN: "letters, digits and _, as in `my_name1`",
    PSNR_PATTERN: 'decibels, such as "45", or "inf"',
}
"""What a pattern asks for, in words: for error messages and the reference."""

Decimal = Annotated[str, Field(pattern=DECIMAL_PATTERN, max_length=20)]
"""A number written as text, as Kubernetes asks of decimals: "5.0"."""
SignedDecimal = Annotated[str, Field(pattern=SIGNED_DECIMAL_PATTERN, max_length=20)]
Label = Annotated[str, Field(pattern=LABEL_PATTERN, max_length=63)]
"""A name that may be part of a host's name."""
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=253)]
"""The name of an object in the job's namespace."""
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE_PATTERN, max_length=63)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY_PATTERN, max_length=317)]
Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=30)]
ClassName = Annotated[str, Field(pattern=CLASS_PATTERN, max_length=127)]
Folder = Annotated[str, Field(pattern=FOLDER_PATTERN, max_length=512)]
Uri = Annotated[str, Field(min_length=1, max_length=2048)]
Revision = Annotated[str, Field(min_length=1, max_length=255)]
Seconds = Annotated[int, Field(ge=1, le=2**31 - 1)]


@dataclass(frozen=True)
class Rule:
    """One validation rule in CEL, on the type that carries it: `self` is the object, `oldSelf` what it was before.

    The API server evaluates it (x-kubernetes-validations), and so does `rules.py` when a file is read. It must
    therefore use only what both have, and hold whether an empty list or map is there or absent: write `!has(self.x) ||
    …`.
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

    def document(self) -> dict[str, Any]:
        """The object as YAML and the API server have it: camelCase, defaults filled in, what isn't set not there."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
