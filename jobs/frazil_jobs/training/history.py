"""What a run was like, step by step: for the report, the progress, and the checkpoint that a resumed run goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

MOST_POINTS: Final = 2000
"""Of one curve; when it's full, every second point is dropped and points come half as often."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One step."""

    step: int
    """Steps that were done then."""
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    """Of this step."""
    throughput: float
    """Samples a second, of the newest steps."""
    freeze_ratio: float = 0.0
    freeze_ratios: tuple[float, ...] = ()
    """By stage."""
    predicted_seconds: float | None = None
    """Of a pipeline batch, by the plan in force."""
    measured_seconds: float | None = None
    """Of a pipeline batch."""
    phase: str = "Off"
    """Of freezing."""
    attempt: int = 0


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One evaluation."""

    step: int
    loss: float
    accuracy: float | None = None


@dataclass
class History:
    """Points and evaluations, in order."""

    points: list[Point] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    plans: list[dict[str, Any]] = field(default_factory=list)
    """Freezing plans as their controller logs them."""
    every: int = 1
    """Steps between two points."""
    looks: int = 0
    """How often freeze ratios by tensor group were noted."""
    group_sums: dict[str, dict[str, float]] = field(default_factory=dict)
    """Their sums, by stage and group."""

    def add(self, point: Point) -> None:
        """Note a step. The newest is always there; it goes with the next one, unless it was due."""
        if self.points and self.points[-1].step % self.every:
            self.points.pop()
        self.points.append(point)
        if len(self.points) > MOST_POINTS:
            self.every *= 2
            self.points = [kept for kept in self.points if kept.step % self.every == 0 or kept is point]

    def note_groups(self, ratios: Mapping[int, Mapping[str, float]]) -> None:
        """Note freeze ratios by stage and tensor group."""
        self.looks += 1
        for stage, groups in ratios.items():
            sums = self.group_sums.setdefault(str(stage), {})
            for group, ratio in groups.items():
                sums[group] = sums.get(group, 0.0) + ratio

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "points": [asdict(point) for point in self.points],
            "measures": [asdict(measure) for measure in self.measures],
            "plans": list(self.plans),
            "every": self.every,
            "looks": self.looks,
            "group_sums": {stage: dict(groups) for stage, groups in self.group_sums.items()},
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> History:
        """What `document` gave."""
        return cls(
            points=[Point(**{**one, "freeze_ratios": tuple(one["freeze_ratios"])}) for one in document["points"]],
            measures=[Measure(**one) for one in document["measures"]],
            plans=list(document["plans"]),
            every=int(document["every"]),
            looks=int(document["looks"]),
            group_sums={stage: dict(groups) for stage, groups in document["group_sums"].items()},
        )
