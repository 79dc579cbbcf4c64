"""What a plan says is what is frozen, to the tensor: so the step that it predicts is the step that runs."""

from __future__ import annotations

import numpy as np
import pytest
from pipeline_cases import SCHEDULES, Stage, timings_of

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.training.freezing.costs import StageTensors
from frazil_jobs.training.freezing.exchange import Alone
from frazil_jobs.training.freezing.selection import Selection
from frazil_jobs.training.planning.program import FreezingSettings, solve
from frazil_jobs.training.planning.schedules import order_of
from frazil_jobs.training.planning.simulator import simulate

DRAWS = 400


@pytest.mark.parametrize("ratio", ["0.3", "0.8", "1"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_executed_ratios_and_the_step_are_the_planned_ones(schedule, ratio):
    freezing = Freezing(max_freeze_ratio=ratio)
    order, timings = order_of(schedule, ranks=2, microbatches=8), timings_of(schedule, 2)
    plan = solve(order, timings, FreezingSettings.of(freezing))
    stages = {stage: StageTensors.of(Stage(blocks=4)) for stage in range(order.stages)}
    selection = Selection(freezing, stages, order, accumulation=1, seed=3, levels=None, exchange=Alone())
    executed, steps = [], []
    for step in range(DRAWS):
        selection.draw(step, plan.ratios, probing=False)
        shares = {action: min(1.0, selection.share(action, 0)) for action in plan.ratios}
        executed.append([shares[action] for action in plan.ratios])
        steps.append(simulate(order, timings, shares).makespan)
    planned, largest = np.array(list(plan.ratios.values())), max(stages[0].costs)
    assert plan.mean_freeze_ratio > 0.1
    assert np.abs(np.array(executed) - planned).max() <= largest + 1e-9
    assert np.abs(np.mean(executed, axis=0) - planned).max() < 3.5 * largest / np.sqrt(DRAWS)
    # a step is a maximum, so rounding to whole tensors makes it longer
    assert 1.0 <= np.mean(steps) / plan.makespan <= 1.02
