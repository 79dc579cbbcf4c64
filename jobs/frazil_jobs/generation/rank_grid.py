"""Which rank of a replica does what: guidance branches × pipeline stages × sequence parts. Values only, no torch.

Sequence is nearest (it talks in every layer), conditioning farthest (one small message a step): rank =
(branch · pipeline + stage) · sequence + part. `groups.py` makes the process groups of a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from frazil_jobs.base.exits import BadConfiguration

if TYPE_CHECKING:
    from frazil_jobs.api.generationjob import GenerationJob
    from frazil_jobs.api.parallelism import Parallelism
    from frazil_jobs.generation.guidance import Guidance

CONDITIONING_FIELD = "spec.parallelism.conditioning"
PIPELINE_FIELD = "spec.parallelism.pipeline"
SEQUENCE_FIELD = "spec.parallelism.sequence"
ONE_CONDITION_REMEDY = f"set {CONDITIONING_FIELD} to 1 and spec.workers.gpusPerNode to match"


class Place(NamedTuple):
    """Where a rank stands in its grid. Each counts from 0."""

    branch: int
    stage: int
    part: int


@dataclass(frozen=True, kw_only=True)
class RankGrid:
    """The degrees of one replica."""

    conditioning: int = 1
    pipeline: int = 1
    sequence: int = 1

    @classmethod
    def of(cls, asked: Parallelism) -> RankGrid:
        """The grid that a job asks for."""
        return cls(conditioning=asked.conditioning, pipeline=asked.pipeline, sequence=asked.sequence)

    @property
    def world(self) -> int:
        """Ranks of the replica."""
        return prod((self.conditioning, self.pipeline, self.sequence))

    def place_of(self, rank: int) -> Place:
        """Where `rank` stands. Raises ValueError for a rank outside of the grid."""
        if not 0 <= rank < self.world:
            raise ValueError(f"rank {rank} is outside of {self}")
        rest, part = divmod(rank, self.sequence)
        branch, stage = divmod(rest, self.pipeline)
        return Place(branch=branch, stage=stage, part=part)

    def rank_of(self, place: Place) -> int:
        """The inverse of `place_of`."""
        return (place.branch * self.pipeline + place.stage) * self.sequence + place.part

    def conditioning_groups(self) -> list[tuple[int, ...]]:
        """Ranks that differ in nothing but their branch, for every such set, by stage and part."""
        return [
            tuple(self.rank_of(Place(branch, stage, part)) for branch in range(self.conditioning))
            for stage in range(self.pipeline)
            for part in range(self.sequence)
        ]

    def sequence_groups(self) -> list[tuple[int, ...]]:
        """Ranks that hold the parts of one sequence, for every such set, by branch and stage."""
        return [
            tuple(self.rank_of(Place(branch, stage, part)) for part in range(self.sequence))
            for branch in range(self.conditioning)
            for stage in range(self.pipeline)
        ]

    def __str__(self) -> str:
        return f"conditioning {self.conditioning} × pipeline {self.pipeline} × sequence {self.sequence}"


def grid_for(job: GenerationJob, guidance: Guidance, ranks: int) -> RankGrid:
    """The grid of one replica with `ranks` ranks, or what is wrong with the degrees that the job asks for.

    A job without guidance collapses to one conditioning rank when `whenUnguided` is OneRank: the grid returned may then be
    smaller than `ranks`, and only its ranks are started. Raises BadConfiguration, before any weight is read.
    """
    asked = job.spec.parallelism
    grid = RankGrid.of(asked)
    if grid.sequence > 1 and (grid.pipeline > 1 or asked.mode == "Hybrid"):
        raise BadConfiguration(
            f"the stages of mode {asked.mode} can't share their tokens among {grid.sequence} ranks",
            field=SEQUENCE_FIELD,
            remedy="set it to 1, or use Guided with pipeline 1",
        )
    if grid.pipeline > 1 and asked.mode == "Exact":
        raise BadConfiguration(
            f"pipeline stages ({grid.pipeline}) work on activations that are one step old, and mode is Exact",
            field=PIPELINE_FIELD,
            remedy="set it to 1 and use sequence or replicas for more GPUs, or set mode to Hybrid or Guided",
        )
    if grid.conditioning > 1:
        grid = _with_guidance(grid, guidance, one_rank=asked.when_unguided == "OneRank")
    full = grid.world * (asked.conditioning // grid.conditioning)
    if ranks not in (full, grid.world):
        raise BadConfiguration(
            f"conditioning {asked.conditioning} × pipeline {grid.pipeline} × sequence {grid.sequence} multiply to {full} "
            f"ranks a replica, but a replica has {ranks}",
            field="spec.parallelism",
            remedy=f"change the degrees or spec.workers (nodesPerReplica × gpusPerNode) so that both are {full}",
        )
    return grid


def _with_guidance(grid: RankGrid, guidance: Guidance, *, one_rank: bool) -> RankGrid:
    if guidance.style == "unsupported":
        raise BadConfiguration(
            f"guidance can't be split over ranks: {guidance.reason}",
            field=CONDITIONING_FIELD,
            remedy=ONE_CONDITION_REMEDY,
        )
    if guidance.style != "none":
        return grid
    if one_rank:
        return RankGrid(conditioning=1, pipeline=grid.pipeline, sequence=grid.sequence)
    raise BadConfiguration(
        f"there is no second branch to give to another rank: {guidance.reason}",
        field=CONDITIONING_FIELD,
        remedy=f"{ONE_CONDITION_REMEDY}, or set spec.parallelism.whenUnguided to OneRank",
    )
