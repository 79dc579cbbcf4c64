"""The measured distance of a job's outputs to exact ones, from what the compute process noted of those that it compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

DISTANCE_FACT: Final = "psnr_to_exact_db"
MODE_FACT: Final = "mode"
WHOLE_FACT: Final = "all_whole_because"


class Distance(BaseModel):
    """Peak signal-to-noise ratios to the outputs of mode Exact, in decibels, before encoding. "inf": equal."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    compared: int
    """Outputs that were made exactly as well."""
    worst_db: str
    mean_db: str
    """Of the mean squared error."""

    def __str__(self) -> str:
        outputs = "output" if self.compared == 1 else "outputs"
        return f"{self.worst_db} dB PSNR at worst, {self.mean_db} dB on average, of {self.compared} compared {outputs}"


def decibels(value: float) -> str:
    """As it stands in facts and manifest."""
    return "inf" if math.isinf(value) else f"{value:.2f}"


@dataclass
class DistanceCount:
    """Counts the facts of outputs."""

    _errors: list[float] = field(default_factory=list)
    _outputs: int = 0
    _whole: int = 0
    _reason: str = ""

    def add(self, facts: Mapping[str, str]) -> None:
        """Take in one output's facts."""
        self._outputs += 1
        if facts.get(MODE_FACT) == "Exact" or facts.get(WHOLE_FACT):
            self._whole += 1
            self._reason = self._reason or facts.get(WHOLE_FACT, "")
        try:
            self._errors.append(10 ** (-float(facts[DISTANCE_FACT]) / 10))
        except (KeyError, ValueError):
            return

    @property
    def distance(self) -> Distance | None:
        """None where nothing was compared."""
        if not self._errors:
            return None
        worst, mean = max(self._errors), sum(self._errors) / len(self._errors)
        return Distance(compared=len(self._errors), worst_db=_of(worst), mean_db=_of(mean))

    @property
    def all_whole(self) -> bool:
        """Whether an approximate mode made all outputs exactly."""
        return bool(self._reason) and self._whole == self._outputs

    @property
    def whole_because(self) -> str:
        """Why outputs of an approximate mode were made exactly, with their number; nothing where none was."""
        if not self._reason:
            return ""
        which = "every output is exact" if self.all_whole else f"{self._whole} outputs are exact"
        return f"{which}: {self._reason}"


def _of(error: float) -> str:
    return decibels(math.inf if error == 0 else -10 * math.log10(error))
