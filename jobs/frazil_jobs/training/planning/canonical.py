"""Values that are written as JSON in one way only, so that ranks can compare them by their hash."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from frazil_jobs.base.exits import BadInput
from frazil_jobs.training.planning.actions import Action


def _parsed(value: Any) -> Any:
    try:
        return Action.parse(value) if isinstance(value, str) else value
    except BadInput as error:
        raise ValueError(str(error)) from None


ActionKey = Annotated[Action, BeforeValidator(_parsed), PlainSerializer(str, return_type=str)]
"""An action as a key of a JSON object: `0F1`."""


class Canonical(BaseModel):
    """A frozen value. Floats come back from its JSON bit for bit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, no spaces, floats as short as they can be read back exactly."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`. Raises BadInput, which names the first wrong field."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise BadInput(
                f"no {cls.__name__}: {first['msg']}",
                field=".".join(str(part) for part in first["loc"]) or None,
                remedy=f"give the JSON that {cls.__name__}.to_json writes",
            ) from None

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
