"""The freezer over real ranks: one plan for all, resumed and replayed bit for bit, and disagreement found."""

from __future__ import annotations

import pytest
from ranks import RankPool, RanksFailed

from frazil_jobs.base.exits import FrazilError
from frazil_jobs.training.freezing.exchange import RanksDisagree

SHORT = {"warmup_steps": 2, "monitor_steps": 3, "ramp_steps": 4, "max_freeze_ratio": "0.5"}
CUTS = {3: "Monitoring", 6: "Ramp", 11: "Stable"}


def on(ranks: int, work: str, **arguments):
    return RankPool.of(ranks).run(f"freezing_work:{work}", **arguments)


def test_a_run_resumed_in_any_phase_ends_with_the_same_weights_bit_for_bit():
    for rank in on(2, "resumed", schedule="1F1B", pipeline=2, settings=SHORT, cuts=tuple(CUTS), steps=13):
        assert {cut: rank["seen"][cut][0] for cut in CUTS} == CUTS
        assert rank["same"] == dict.fromkeys(CUTS, True)
        assert rank["plans"] == [(5, "Monitored")]
        assert rank["seen"][0][1] == 0 < rank["seen"][6][1] < rank["seen"][12][1] <= 0.5 + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["GPipe", "Interleaved1F1B", "ZBV", "ZBH1"])
@pytest.mark.parametrize("selection", ["CostAware", "Uniform", "APF", "AutoFreeze"])
def test_so_does_one_of_every_schedule_and_selection_that_is_planned_anew(schedule, selection):
    settings = {**SHORT, "selection": selection, "apf_threshold": "0.5", "auto_freeze_percentile": 50}
    cuts = (4, 7, 15, 45, 52)
    for rank in on(2, "resumed", schedule=schedule, pipeline=2, settings=settings, cuts=cuts, steps=60, slows_at=20):
        assert rank["same"] == dict.fromkeys(cuts, True)
        assert len(rank["plans"]) == 2


@pytest.mark.parametrize("live", [True, False])
def test_a_run_replayed_from_its_log_ends_with_the_same_weights_bit_for_bit(live):
    settings = {**SHORT, "warmup_steps": 1}
    for rank in on(2, "replayed", schedule="1F1B", pipeline=2, settings=settings, steps=9, live=live):
        assert rank["same"]
        ((step, plan),) = rank["plans"]
        assert step == 4
        assert live or plan["mean_freeze_ratio"] > 0.1


def test_live_plans_are_the_same_on_every_rank():
    first, second = on(2, "replayed", schedule="ZBH1", pipeline=2, settings=SHORT, steps=7, live=True)
    assert first["plans"] == second["plans"] != []


def test_ranks_that_hold_different_plans_all_stop():
    with pytest.raises(RanksFailed) as caught:
        on(2, "corrupted", schedule="1F1B", pipeline=2)
    assert all(isinstance(error, RanksDisagree) for error in caught.value.errors)
    assert "freezing plan differs between ranks" in str(caught.value.errors[0])


def test_ranks_that_resume_from_different_checkpoints_all_stop():
    with pytest.raises(RanksFailed) as caught:
        on(2, "other_state", schedule="1F1B", pipeline=2)
    assert all(isinstance(error, RanksDisagree) for error in caught.value.errors)


def test_a_solver_that_fails_on_its_rank_fails_on_all_with_the_way_out():
    with pytest.raises(RanksFailed) as caught:
        on(2, "failing", schedule="1F1B", pipeline=2)
    for error in caught.value.errors:
        assert isinstance(error, FrazilError)
        assert "no solver today" in str(error)
        assert "method to None" in str(error)


def test_autofreeze_alone_freezes_one_front_prefix_of_the_whole_model():
    ranks = on(2, "metric", schedule="Interleaved1F1B", pipeline=2, method="AutoFreeze", steps=62)
    frozen = {key: share for rank in ranks for key, share in rank["frozen"].items()}
    assert set(frozen.values()) == {0.0, 1.0}
    in_order = [frozen[key] for key in sorted(frozen, key=_front_to_back)]
    assert in_order == sorted(in_order, reverse=True)


def _front_to_back(key: str) -> tuple[int, int]:
    stage, name = key.split(".", 1)
    return int(stage), 0 if name.startswith("embed") else 1 + int(name.split(".")[1])


def test_apf_alone_freezes_whole_steps_and_only_what_its_metric_calls_stable():
    ranks = on(2, "metric", schedule="1F1B", pipeline=2, method="APF", steps=32)
    assert {share for rank in ranks for share in rank["frozen"].values()} == {0.0, 1.0}
    strict = on(2, "metric", schedule="1F1B", pipeline=2, method="APF", steps=32, threshold="0")
    assert {share for rank in strict for share in rank["frozen"].values()} == {0.0}
    assert {phase for phase, _ in strict[0]["seen"]} == {"Metric"}
