"""What APF and AutoFreeze call settled, on weights and gradients that the test sets by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from frazil_jobs.training.freezing.costs import StageTensors
from frazil_jobs.training.freezing.exchange import Alone
from frazil_jobs.training.freezing.metrics import LOOK_EVERY, Apf, AutoFreeze, layer_of


class Layers(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 2, bias=False)
        self.blocks = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(count))


def one_stage(count: int = 3) -> dict[int, StageTensors]:
    return {0: StageTensors.of(Layers(count))}


def looks(apf: Apf, tensors: StageTensors, steps: int, changes: dict[int, Any], *, learned: bool = True) -> None:
    """Run to `steps`, changing tensors by changes[position](look) before each look."""
    for step in range(0, steps, LOOK_EVERY):
        with torch.no_grad():
            for position, change in changes.items():
                tensors.parameters[position].add_(change(step // LOOK_EVERY))
        for parameter in tensors.parameters:
            parameter.grad = torch.ones_like(parameter) if learned else None
        apf.note_gradients(step)
        apf.look(step)


def test_apf_calls_settled_what_oscillates_and_not_what_moves_one_way():
    stages = one_stage()
    apf = Apf(stages, threshold=0.3)
    looks(apf, stages[0], 61, {0: lambda look: (-1) ** look, 1: lambda look: 1.0, 2: lambda look: -0.1})
    assert apf.settled(61, 0) == [True, False, False, False]


def test_apf_does_not_call_settled_what_never_moved():
    stages = one_stage()
    apf = Apf(stages, threshold=1.0)
    looks(apf, stages[0], 61, {0: lambda look: 1.0})
    assert apf.settled(61, 0) == [True, False, False, False]


def test_apfs_period_grows_by_a_look_each_time_and_halves_when_it_moves_again():
    stages = one_stage()
    apf = Apf(stages, threshold=0.999)
    ends = []
    for steps in (21, 31, 41):
        stages[0].parameters[0].data.zero_()
        apf = Apf(stages, threshold=0.999)
        looks(apf, stages[0], steps, {0: lambda look: (-1) ** look * (1 + look / 10)})
        last = (steps - 1) // LOOK_EVERY * LOOK_EVERY
        ends.append(next(step - last for step in range(last, 1000) if not apf.settled(step, 0)[0]))
    assert ends[1] - ends[0] == ends[2] - ends[1] == LOOK_EVERY
    looks_without = stages[0]
    apf.note_gradients(41)
    for parameter in looks_without.parameters:
        parameter.grad = None
    apf.look(50)
    apf.look(60)
    left = next(step - 60 for step in range(60, 1000) if not apf.settled(step, 0)[0])
    assert left <= (ends[2] + LOOK_EVERY) // 2


def test_a_metric_goes_on_from_its_state_bit_for_bit():
    def changes(look: int) -> float:
        return (-1) ** look * 0.3 + 0.01 * look

    stages, again = one_stage(), one_stage()
    apf = Apf(stages, threshold=0.5)
    looks(apf, stages[0], 35, {0: changes, 1: lambda look: 0.2})
    other = Apf(again, threshold=0.5)
    other.load_state_dict(apf.state_dict())
    with torch.no_grad():
        for mine, theirs in zip(stages[0].parameters, again[0].parameters, strict=True):
            theirs.copy_(mine)
            for one in (mine, theirs):
                one.add_(0.1)
                one.grad = torch.ones_like(one)
    for metric in (apf, other):
        metric.note_gradients(39)
        metric.look(40)
    first, second = apf.state_dict(), other.state_dict()
    assert all(torch.equal(first["last"][name], second["last"][name]) for name in first["last"])
    for state in (first, second):
        del state["last"]
    assert first == second


class Ranks(Alone):
    """An exchange whose other rank always gives the same scores."""

    def __init__(self, theirs: dict[tuple[int, int], float]) -> None:
        self.theirs = theirs

    def gather(self, value: Any) -> list[Any]:
        return [value, self.theirs]


def run_auto(auto: AutoFreeze, tensors: StageTensors, norms: list[list[float]]) -> None:
    """norms[look][tensor]: the gradients' L1 norms of the step before each look."""
    for look, row in enumerate(norms, 1):
        for parameter, norm in zip(tensors.parameters, row, strict=True):
            parameter.grad = None if norm < 0 else torch.full_like(parameter, norm / parameter.numel())
        auto.note_gradients(look * LOOK_EVERY - 1)
        auto.look(look * LOOK_EVERY)


def test_autofreeze_freezes_the_front_up_to_the_first_layer_that_still_changes():
    stages = one_stage()
    auto = AutoFreeze(stages, 80, Alone())
    run_auto(auto, stages[0], [[1, 1, 1, 1], [1.01, 1.02, 2, 1.01]])
    assert auto.settled(20, 0) == [True, True, False, False]


def test_autofreezes_prefix_is_one_of_the_whole_model():
    stages = one_stage()
    # the other rank holds stage 1, whose first layer changes most: all of stage 0 is before it
    auto = AutoFreeze(stages, 90, Ranks({(1, 0): 9.0, (1, 1): 0.0}))
    run_auto(auto, stages[0], [[1, 1, 1, 1], [1.01, 1.02, 1.03, 1.01]])
    assert auto.settled(20, 0) == [True] * 4
    # the other rank holds a stage before: its first layer changes most, so nothing here is frozen
    later = {1: StageTensors.of(Layers(3))}
    auto = AutoFreeze(later, 90, Ranks({(0, 0): 9.0, (0, 1): 0.0}))
    run_auto(auto, later[1], [[1, 1, 1, 1], [1.01, 1.02, 1.03, 1.01]])
    assert auto.settled(20, 1) == [False] * 4


def test_autofreeze_stops_before_a_layer_that_has_not_begun_to_learn():
    stages = one_stage()
    auto = AutoFreeze(stages, 99, Alone())
    run_auto(auto, stages[0], [[1, 0, 1, 1], [1.01, 0, 1, 2]])
    assert auto.settled(20, 0) == [True, False, False, False]


def test_autofreezes_prefix_never_shrinks():
    stages = one_stage()
    auto = AutoFreeze(stages, 80, Alone())
    run_auto(auto, stages[0], [[1, 1, 1, 1], [1.01, 1.02, 2, 1.01], [-1, -1, 2.01, 9], [-1, -1, 9, 9]])
    assert auto.settled(40, 0)[:2] == [True, True]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("blocks.3.attn.q.weight", "blocks.3"),
        ("model.layers.12.mlp.up_proj.weight", "model.layers.12"),
        ("blocks.3.experts.7.weight", "blocks.3"),
        ("embed.weight", "embed"),
        ("head", "head"),
        ("mlp.0.weight", "mlp.0"),
    ],
)
def test_a_tensors_layer_is_its_name_up_to_the_first_number(name, layer):
    assert layer_of(name) == layer
