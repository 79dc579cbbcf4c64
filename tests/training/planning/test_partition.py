"""Cuts against brute force over all cuts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.planning import program, simulator
from frazil_jobs.training.planning.models import BlockTime, Cut, ModelTime
from frazil_jobs.training.planning.partition import cut, least_slowest, uniform
from frazil_jobs.training.planning.program import FreezingSettings
from frazil_jobs.training.planning.schedules import order_of

BLOCK = BlockTime(forward=1.0, backward_input=1.0, backward_weight=1.0)
HEAD = BlockTime(forward=2.0, backward_input=2.0, backward_weight=2.0)


def all_cuts(blocks: int, stages: int) -> list[Cut]:
    return [Cut((0, *inner, blocks)) for inner in itertools.combinations(range(1, blocks), stages - 1)]


def slowest(totals: list[float], of: Cut) -> float:
    return max(sum(totals[left:right]) for left, right in itertools.pairwise(of.bounds))


@given(some.lists(some.floats(0.01, 10), min_size=4, max_size=9), some.integers(1, 4))
def test_no_cut_has_a_faster_slowest_stage(totals: list[float], stages: int) -> None:
    found = slowest(totals, least_slowest(totals, stages))
    assert found == pytest.approx(min(slowest(totals, each) for each in all_cuts(len(totals), stages)))


@given(some.integers(1, 60), some.data())
def test_uniform_stages_differ_by_one_block_at_most_and_hold_all(blocks: int, data) -> None:
    stages = data.draw(some.integers(1, blocks))
    sizes = uniform(blocks, stages).sizes
    assert sum(sizes) == blocks
    assert max(sizes) - min(sizes) <= 1
    assert list(sizes) == sorted(sizes, reverse=True)


@settings(max_examples=25)
@given(some.lists(some.floats(0.2, 3), min_size=5, max_size=8), some.floats(0, 6), some.sampled_from(("1F1B", "ZBH1")))
def test_balanced_is_close_to_the_best_of_all_cuts_and_never_worse_than_uniform(times, head, schedule) -> None:
    model = ModelTime(
        blocks=tuple(BlockTime(forward=t, backward_input=t, backward_weight=t) for t in times),
        after=BlockTime(forward=head, backward_input=head, backward_weight=head),
    )
    order = order_of(schedule, ranks=3, microbatches=6)

    def makespan(of: Cut) -> float:
        return simulator.simulate(order, model.timings(of, order)).makespan

    found = makespan(cut("Balanced", model, order))
    assert found <= makespan(uniform(len(times), 3))
    assert found <= 1.02 * min(map(makespan, all_cuts(len(times), 3)))


def test_a_heavy_head_gets_fewer_blocks_beside_it_and_the_step_gets_shorter() -> None:
    model = ModelTime(blocks=(BLOCK,) * 16, after=HEAD)
    order = order_of("1F1B", ranks=4, microbatches=8)
    balanced = cut("Balanced", model, order)
    assert cut("Uniform", model, order).sizes == (4, 4, 4, 4)
    assert balanced.sizes[3] < min(balanced.sizes[:3])
    unfrozen = {of: simulator.simulate(order, model.timings(of, order)).makespan for of in (balanced, uniform(16, 4))}
    assert unfrozen[balanced] < 0.9 * unfrozen[uniform(16, 4)]


def test_a_cut_for_a_freezing_plan_is_at_least_as_fast_with_it() -> None:
    model = ModelTime(blocks=(BLOCK,) * 10, before=BLOCK, after=HEAD)
    order = order_of("1F1B", ranks=3, microbatches=6)
    allowed = FreezingSettings(max_ratio=0.5, slack=0.0)

    def planned(of: Cut) -> float:
        return program.solve(order, model.timings(of, order), allowed).makespan

    joint, apart = cut("Balanced", model, order, allowed), cut("Balanced", model, order)
    assert planned(joint) <= planned(apart) * (1 + 1e-9)
    assert planned(joint) <= 1.02 * min(map(planned, all_cuts(10, 3)))


def test_the_first_stage_computes_no_input_gradient_of_its_first_weights() -> None:
    order = order_of("1F1B", ranks=2, microbatches=2)
    bare = ModelTime(blocks=(BLOCK,) * 4).stage_times(uniform(4, 2))
    assert (bare[0].backward, bare[0].backward_frozen) == (3.0, 0.0)
    assert (bare[1].backward, bare[1].backward_frozen) == (4.0, 2.0)
    lookup = BlockTime(forward=0.5, backward_input=0.0, backward_weight=0.5)
    embedded = ModelTime(blocks=(BLOCK,) * 4, before=lookup).stage_times(uniform(4, 2))
    assert embedded[0].backward == 4.5
    assert order.stages == 2


@pytest.mark.parametrize("schedule", ["Interleaved1F1B", "ZBV"])
def test_schedules_with_two_stages_a_rank_are_cut_into_twice_as_many(schedule) -> None:
    order = order_of(schedule, ranks=2, microbatches=4)
    found = cut("Balanced", ModelTime(blocks=(BLOCK,) * 8, after=HEAD), order, FreezingSettings())
    assert found.stages == 4
    assert sum(found.sizes) == 8


@pytest.mark.parametrize("method", ["Uniform", "Balanced"])
def test_fewer_blocks_than_stages_are_refused_with_the_field_and_the_way_out(method) -> None:
    with pytest.raises(BadConfiguration, match="3 blocks, too few for 4 stages") as refused:
        cut(method, ModelTime(blocks=(BLOCK,) * 3), order_of("1F1B", ranks=4, microbatches=8))
    assert refused.value.field == "spec.parallelism.pipeline"
    assert "lower pipeline" in str(refused.value.remedy)
