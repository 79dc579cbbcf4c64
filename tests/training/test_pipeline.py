"""The engine against the unpipelined model: every schedule, with and without masks, bit for bit."""

from __future__ import annotations

import pytest
from pipeline_cases import SCHEDULES
from ranks import RankPool, RanksFailed

from frazil_jobs.base.exits import BadConfiguration

KINDS = ("random", "first", "last", "all", "first-once", "last-once", "all-once")
FOUR = pytest.param(4, marks=pytest.mark.slow)


def on(ranks: int, work: str, **arguments):
    return RankPool.of(ranks).run(f"pipeline_work:{work}", **arguments)


@pytest.mark.parametrize("pipeline", [2, FOUR])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_masks_loss_and_gradients_are_those_of_the_unpipelined_model(schedule, pipeline):
    for rank in on(pipeline, "masks_off", schedule=schedule, pipeline=pipeline, accumulation=2):
        assert rank["worst"] <= 1e-12
        assert rank["loss"] == pytest.approx(rank["wanted_loss"], rel=1e-12)
        assert rank["evaluated"] == pytest.approx(rank["wanted_loss"], rel=1e-12)


@pytest.mark.parametrize("pipeline", [2, FOUR])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_with_masks_gradients_are_the_sums_over_unfrozen_microbatches_bit_for_bit(schedule, pipeline):
    for rank in on(pipeline, "masks_on", schedule=schedule, pipeline=pipeline, kinds=KINDS):
        assert rank == {kind: [] for kind in KINDS}


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("schedule", ["1F1B", "ZBV"])
def test_over_two_accumulated_batches_too_rescaled_or_not(schedule, rescale):
    for rank in on(2, "masks_on", schedule=schedule, pipeline=2, kinds=KINDS, accumulation=2, rescale=rescale):
        assert rank == {kind: [] for kind in KINDS}


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
@pytest.mark.parametrize("schedule", ["1F1B", "ZBH1"])
def test_a_tensor_frozen_throughout_and_its_optimizer_state_stay_bit_for_bit(schedule, optimizer):
    for rank in on(2, "frozen_state", schedule=schedule, pipeline=2, optimizer=optimizer):
        assert len(rank["frozen"]) == 1
        assert rank["changed"] == sorted(set(rank["all"]) - set(rank["frozen"]))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dw_is_computed_once_for_each_unfrozen_tensor_and_microbatch(schedule):
    for rank in on(2, "products", schedule=schedule, pipeline=2):
        assert 0 < rank["counted"] == rank["trained"]


@pytest.mark.parametrize("schedule", ["GPipe", "1F1B", "Interleaved1F1B"])
def test_a_custom_kernel_is_never_asked_for_the_dw_of_a_frozen_tensor(schedule):
    for rank in on(2, "counted", schedule=schedule, pipeline=2):
        assert 0 < rank["counted"] == rank["trained"]


def test_in_a_split_backward_a_fused_kernel_computes_an_unfrozen_dw_twice_and_a_frozen_one_never():
    # torch runs its node for dX and again for dW, and the kernel can't tell: known, and the same without freezing
    first, second = on(2, "counted", schedule="ZBH1", pipeline=2)
    assert first["counted"] == first["trained"] > 0  # the first stage's backward isn't split
    assert second["counted"] == 2 * second["trained"] > 0


@pytest.mark.parametrize("schedule", ["1F1B", "ZBV"])
def test_what_dw_alone_needs_is_not_kept_for_frozen_tensors(schedule):
    first, *_ = ranks = on(2, "saved", schedule=schedule, pipeline=2)
    for rank in ranks:
        assert rank["everything"] < rank["half"] < rank["nothing"]
    if schedule == "1F1B":  # the first stage alone on its rank: no backward at all is left
        assert first["everything"] == 0


@pytest.mark.parametrize("schedule", ["1F1B", "Interleaved1F1B"])
def test_gradients_of_all_ranks_are_clipped_by_the_norm_of_the_whole_model(schedule):
    ranks = on(2, "clipped", schedule=schedule, pipeline=2, max_norm=0.01)
    for rank in ranks:
        assert rank["norm"] == pytest.approx(rank["wanted"], rel=1e-12)
        assert rank["after"] == pytest.approx(0.01, rel=1e-4)
    assert ranks[0]["norm"] == ranks[1]["norm"]


@pytest.mark.parametrize("how", ["checkpoint", pytest.param("compile", marks=pytest.mark.slow)])
def test_masks_hold_under_checkpointing_and_compilation(how):
    for rank in on(2, "variant", schedule="1F1B", pipeline=2, how=how):
        assert rank["nones"]
        assert rank["equal"] if how == "checkpoint" else rank["worst"] < 1e-5


@pytest.mark.parametrize("schedule", ["1F1B", "ZBV"])
def test_masks_hold_under_bfloat16_autocast_and_gradients_stay_in_float32(schedule):
    for rank in on(2, "variant", schedule=schedule, pipeline=2, how="bfloat16"):
        assert rank["nones"]
        assert 0 < rank["worst"] < 0.03
        assert rank["kinds"] == ["torch.bfloat16"]
        assert rank["gradients"] == ["torch.float32"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_clock_sees_each_action_of_the_order_once_in_that_order(schedule):
    for rank in on(2, "timed", schedule=schedule, pipeline=2):
        assert rank["timed"] == rank["order"]
        assert rank["positive"]
        assert rank["shared"] == rank["whole"]


def test_one_rank_alone_trains_without_any_group():
    from pipeline_work import one_stage

    result = one_stage()
    assert result["same"]
    assert result["loss"] == pytest.approx(result["wanted_loss"], rel=1e-12)
    assert result["evaluated"] == pytest.approx(result["wanted_loss"], rel=1e-12)
    assert result["norm"] > 0
    assert (result["report"].phase, result["report"].mean_freeze_ratio) == ("Off", 0.0)


@pytest.mark.slow
def test_replicas_average_their_gradients():
    for rank in on(4, "replicas_mean", schedule="1F1B", pipeline=2, data=2):
        assert rank == []


@pytest.mark.slow
@pytest.mark.parametrize("selection", ["CostAware", "Uniform", "APF", "AutoFreeze"])
def test_replicas_stay_bit_for_bit_the_same_while_they_freeze(selection):
    settings = {
        "selection": selection, "warmup_steps": 1, "monitor_steps": 3, "ramp_steps": 4, "max_freeze_ratio": "0.6",
        "apf_threshold": "0.5",
    }  # fmt: skip
    ranks = on(4, "replicas", schedule="1F1B", pipeline=2, data=2, steps=24, settings=settings)
    assert ranks[0] == ranks[2]
    assert ranks[1] == ranks[3]
    assert ranks[0] != ranks[1]


def test_a_batch_that_microbatches_do_not_divide_is_refused_with_the_remedy():
    with pytest.raises(RanksFailed) as caught:
        on(2, "bad_batch", schedule="1F1B", pipeline=2)
    assert all(isinstance(error, BadConfiguration) for error in caught.value.errors)
    assert "spec.batchSize" in str(caught.value.errors[0])


def test_stages_of_another_rank_are_refused():
    with pytest.raises(RanksFailed) as caught:
        on(2, "wrong_stages", schedule="1F1B", pipeline=2)
    assert "schedule has it hold (1,)" in str(caught.value.errors[1])
