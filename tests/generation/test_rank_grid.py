"""The rank grid as a table, and what a job's degrees may be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.guidance import Guidance
from frazil_jobs.generation.rank_grid import Place, RankGrid, grid_for

ONE_CALL = Guidance(style="one-call", conditions=2, reason="two branches")
NONE = Guidance(style="none", conditions=1, reason="guidance_scale is 1")
UNSUPPORTED = Guidance(style="unsupported", conditions=1, reason="SomePipeline does it its own way")

degrees = some.integers(1, 4)


def job(**parallelism: Any) -> Any:
    defaults = {"conditioning": 2, "pipeline": 1, "sequence": 1, "mode": "Exact", "when_unguided": "Fail"}
    return SimpleNamespace(spec=SimpleNamespace(parallelism=SimpleNamespace(**{**defaults, **parallelism})))


@given(degrees, degrees, degrees)
def test_places_and_ranks_are_one_to_one_and_sequence_is_nearest(
    conditioning: int, pipeline: int, sequence: int
) -> None:
    grid = RankGrid(conditioning=conditioning, pipeline=pipeline, sequence=sequence)
    places = [grid.place_of(rank) for rank in range(grid.world)]
    assert len(places) == grid.world == conditioning * pipeline * sequence
    assert [grid.rank_of(place) for place in places] == list(range(grid.world))
    assert places == sorted(places)


@given(degrees, degrees, degrees)
def test_every_rank_is_in_one_group_of_each_kind_which_varies_in_that_kind_alone(
    conditioning: int, pipeline: int, sequence: int
) -> None:
    grid = RankGrid(conditioning=conditioning, pipeline=pipeline, sequence=sequence)
    for groups, varying in ((grid.conditioning_groups(), 0), (grid.sequence_groups(), 2)):
        assert sorted(rank for group in groups for rank in group) == list(range(grid.world))
        for group in groups:
            places = [grid.place_of(rank) for rank in group]
            assert [place[varying] for place in places] == list(range(len(group)))
            assert len({place[:varying] + place[varying + 1 :] for place in places}) == 1


def test_four_ranks_of_two_branches_and_two_sequence_parts() -> None:
    grid = RankGrid(conditioning=2, sequence=2)
    assert grid.conditioning_groups() == [(0, 2), (1, 3)]
    assert grid.sequence_groups() == [(0, 1), (2, 3)]
    assert grid.place_of(3) == Place(branch=1, stage=0, part=1)


@pytest.mark.parametrize("rank", [-1, 4])
def test_a_rank_outside_of_the_grid_has_no_place(rank: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        RankGrid(conditioning=2, sequence=2).place_of(rank)


@pytest.mark.parametrize(
    ("case", "parallelism", "guidance", "ranks", "expected"),
    [
        ("two branches", {}, ONE_CALL, 2, (2, 1, 1)),
        ("two branches in two parts", {"sequence": 2}, ONE_CALL, 4, (2, 1, 2)),
        ("one rank", {"conditioning": 1}, ONE_CALL, 1, (1, 1, 1)),
        ("one rank needs no guidance", {"conditioning": 1}, NONE, 1, (1, 1, 1)),
        ("one rank runs what can't be split", {"conditioning": 1}, UNSUPPORTED, 1, (1, 1, 1)),
        ("unguided on the ranks asked for", {"when_unguided": "OneRank"}, NONE, 2, (1, 1, 1)),
        ("unguided on the one rank there is", {"when_unguided": "OneRank"}, NONE, 1, (1, 1, 1)),
        ("Hybrid on its two branches", {"mode": "Hybrid"}, ONE_CALL, 2, (2, 1, 1)),
        ("Guided, two branches of two stages", {"mode": "Guided", "pipeline": 2}, ONE_CALL, 4, (2, 2, 1)),
        ("unguided keeps its sequence", {"when_unguided": "OneRank", "sequence": 2}, NONE, 4, (1, 1, 2)),
    ],
)
def test_the_grid_of_a_job(case: str, parallelism: Any, guidance: Guidance, ranks: int, expected: Any) -> None:
    grid = grid_for(job(**parallelism), guidance, ranks)
    assert (grid.conditioning, grid.pipeline, grid.sequence) == expected, case


@pytest.mark.parametrize(
    ("case", "parallelism", "guidance", "ranks", "field", "words"),
    [
        ("too few ranks", {}, ONE_CALL, 1, "spec.parallelism", "conditioning 2 × pipeline 1 × sequence 1"),
        ("too many ranks", {"sequence": 2}, ONE_CALL, 8, "spec.parallelism", "multiply to 4"),
        ("a degree that does not divide", {"sequence": 3}, ONE_CALL, 4, "spec.parallelism", "sequence 3"),
        ("no guidance", {}, NONE, 2, "spec.parallelism.conditioning", "whenUnguided to OneRank"),
        ("unsplittable guidance", {}, UNSUPPORTED, 2, "spec.parallelism.conditioning", "SomePipeline"),
        (
            "unsplittable guidance is not no guidance",
            {"when_unguided": "OneRank"},
            UNSUPPORTED,
            2,
            "spec.parallelism.conditioning",
            "conditioning to 1",
        ),
        ("stages in mode Exact", {"pipeline": 2}, ONE_CALL, 4, "spec.parallelism.pipeline", "one step old"),
        (
            "stages with sequence parts",
            {"mode": "Guided", "pipeline": 2, "sequence": 2},
            ONE_CALL,
            8,
            "spec.parallelism.sequence",
            "share their tokens",
        ),
        (
            "Hybrid with sequence parts",
            {"mode": "Hybrid", "sequence": 2},
            ONE_CALL,
            4,
            "spec.parallelism.sequence",
            "share their tokens",
        ),
    ],
)
def test_degrees_that_cannot_be_are_refused_with_field_and_remedy(
    case: str, parallelism: Any, guidance: Guidance, ranks: int, field: str, words: str
) -> None:
    with pytest.raises(BadConfiguration) as refused:
        grid_for(job(**parallelism), guidance, ranks)
    assert refused.value.field == field, case
    assert refused.value.remedy
    assert words in str(refused.value)
