"""What the benches compare: a mode and its switching, written as `Guided:budget=45,predictorOrder=1`.

The names are those of the job file (`spec.parallelism.switching`), so that a setting that is found good can be pasted there.
`conditioning=1` runs it on one rank, `pipeline=2` with two stages a branch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from frazil_jobs.api.parallelism import Parallelism
from frazil_jobs.api.rules import violations
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.rank_grid import RankGrid

MODES = ("Exact", "Hybrid", "Guided")
_OWN = ("conditioning", "pipeline")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of the tables."""

    text: str
    parallelism: Parallelism

    @property
    def mode(self) -> str:
        """Exact, Hybrid or Guided."""
        return self.parallelism.mode

    @property
    def ranks(self) -> int:
        """Ranks that it runs on."""
        return RankGrid.of(self.parallelism).world

    @property
    def detail(self) -> str:
        """What follows the mode."""
        return self.text.partition(":")[2] or "defaults"


def parse(text: str) -> Setting:
    """A setting of its text. Raises BadConfiguration that names the field."""
    mode, _, rest = text.partition(":")
    if mode not in MODES:
        raise BadConfiguration(f"{mode!r} is no mode", field="--setting", remedy=f"begin with {', '.join(MODES)}")
    document: dict[str, object] = {"mode": mode}
    switching: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        name, separator, value = part.partition("=")
        if not separator:
            raise BadConfiguration(f"{part!r} has no value", field="--setting", remedy="write name=value")
        given: object = int(value) if value.isdigit() and name not in ("budget", "slopeThreshold") else value
        (document if name in _OWN else switching)[name] = given
    try:
        parallelism = Parallelism.model_validate({**document, "switching": switching})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadConfiguration(f"{first['msg']}", field=f"--setting {text}: {where}") from None
    for violation in violations(parallelism):
        raise BadConfiguration(violation.rule.message, field=f"--setting {text}: {violation.field}")
    return Setting(text=text, parallelism=parallelism)


SPEED = (
    "Exact",
    "Hybrid:windowPercent=10",
    "Hybrid:windowPercent=40",
    "Guided:budget=45",
    "Guided:budget=35",
    "Guided:budget=45,conditioning=1",
)
"""What `frazil bench modes` times when nothing is asked for."""

NEAR = "Guided:budget=45,predictorOrder=2,refreshEvery=2"
FAR = "Guided:budget=35,predictorOrder=0,refreshEvery=5"
"""The two of FRONTIER that the page on modes speaks of: far nearer than Hybrid, and as far as Hybrid but much faster."""

FRONTIER = (
    "Exact",
    *(f"Hybrid:windowPercent={window}" for window in (10, 20, 40, 70)),
    *(f"Hybrid:windowPercent=10,slopeThreshold=0,capPercent={cap}" for cap in (50, 70, 90)),
    *(
        f"Guided:budget={budget},predictorOrder={order},refreshEvery={every}"
        for order in (0, 1, 2)
        for every in (2, 5)
        for budget in (55, 45, 35)
    ),
    *(f"{setting},conditioning=1" for setting in (NEAR, FAR)),
)
"""What `frazil bench quality` draws: windows, their places, budgets and orders of the forecast; and the same reuse on one
rank."""


def parsed(texts: Iterable[str]) -> list[Setting]:
    """All of them; Exact first, since everything is compared with it."""
    found = [parse(text) for text in dict.fromkeys(texts)]
    exact = [setting for setting in found if setting.text == "Exact"] or [parse("Exact")]
    return exact + [setting for setting in found if setting.text != "Exact"]
