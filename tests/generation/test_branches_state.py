"""The branch split over several calls, when guidance ends or is not there, and when something goes wrong."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from branch_cases import Case, build, call_of
from rank_work import TAMPERS
from ranks import RankPool, RanksFailed
from sequential import STACKED, branches_one_by_one


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def sequential(case: Case, *, tamper: str | None = None) -> torch.Tensor:
    """The latents of a case, its branches one after the other in this process."""
    pipe = build(case)
    arguments = call_of(case)
    if case.pipeline in STACKED:
        context: Any = branches_one_by_one(pipe, case.pipeline, branches=2, batch=case.batch)
    else:
        context = _nothing()
    with context:
        if tamper is None:
            return pipe(**arguments)[0]
        with TAMPERS[tamper](pipe, arguments, 0):
            return pipe(**arguments)[0]


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


run = functools.partial(RankPool.of(2).run)


@pytest.mark.parametrize(
    ("pipeline", "sizes"),
    [("sdxl", [(32, 32), (48, 32), (32, 32)]), ("flux", [(8, 8), (8, 16), (8, 8)]), ("wan", [(16, 16), (32, 16)])],
)
def test_images_of_several_sizes_and_batches_in_a_row_each_come_out_right(pipeline: str, sizes: list[Any]) -> None:
    cases = [
        Case(pipeline=pipeline, batch=1 + index % 2, seed=index, arguments={"height": height, "width": width})
        for index, (height, width) in enumerate(sizes)
    ]
    for results in run("rank_work:generate", cases=cases):
        for case, result in zip(cases, results, strict=True):
            assert torch.equal(result["latents"], sequential(case))


@pytest.mark.parametrize("case", [Case(pipeline="sdxl", steps=5), Case(pipeline="wan", batch=2, steps=5)], ids=str)
def test_guidance_that_a_callback_ends_in_mid_run_needs_no_message_from_then_on(case: Case) -> None:
    for (result,) in run("rank_work:generate", cases=[case], tamper="guidance ends"):
        assert torch.equal(result["latents"], sequential(case, tamper="guidance ends"))
        assert len(result["messages"]) == 2


def test_skip_layer_guidance_adds_calls_of_one_branch_which_every_rank_runs_without_a_message() -> None:
    skipping = {"skip_guidance_layers": [1], "skip_layer_guidance_start": -1.0, "skip_layer_guidance_stop": 1.0}
    case = Case(pipeline="sd3", batch=2, steps=3, arguments=skipping)
    for (result,) in run("rank_work:generate", cases=[case]):
        assert torch.equal(result["latents"], sequential(case))
        assert len(result["inputs"]) == 6
        assert len(result["messages"]) == 3


@pytest.mark.parametrize(
    "case",
    [
        Case(pipeline="sdxl", arguments={"guidance_scale": 1.0}),
        Case(pipeline="flux-distilled"),
        Case(pipeline="flux", arguments={"true_cfg_scale": 1.0}),
        Case(pipeline="wan", arguments={"guidance_scale": 1.0}),
    ],
    ids=str,
)
def test_calls_without_guidance_run_whole_on_every_rank_and_send_nothing(case: Case) -> None:
    for (result,) in run("rank_work:generate", cases=[case]):
        assert result["guidance"].style == "none"
        assert torch.equal(result["latents"], build(case)(**call_of(case))[0])
        assert result["messages"] == []


@pytest.mark.parametrize(
    ("case", "tamper", "message"),
    [
        (Case(pipeline="sdxl", batch=2), "both raise", "told to fail at step 1"),
        (Case(pipeline="wan", batch=2), "both raise", "told to fail at step 1"),
        (Case(pipeline="flux", batch=2), "second call raises", "told to fail between the branches"),
    ],
    ids=str,
)
def test_a_call_that_fails_in_mid_run_leaves_nothing_behind(case: Case, tamper: str, message: str) -> None:
    for error, latents in run("rank_work:after_an_error", case=case, tamper=tamper):
        assert error == message
        assert torch.equal(latents, sequential(case))


def test_a_tensor_argument_that_nothing_is_known_of_is_refused_by_name() -> None:
    strange = Case(pipeline="sdxl", arguments={"cross_attention_kwargs": {"strange": torch.zeros(2, 4)}})
    for kind, message in run("rank_work:outcome", cases=[strange]):
        assert kind == "BadConfiguration"
        assert "'strange' of UNet2DConditionModel" in message
        assert "spec.parallelism.conditioning" in message


def test_a_pipeline_that_copies_the_placeholder_is_found_out_on_its_first_image() -> None:
    case = Case(pipeline="flux", steps=4)
    outcomes = run("rank_work:outcome", cases=[case], tamper="copies", seconds=6)
    kind, message = outcomes[1]
    assert kind == "BadConfiguration"
    assert "copies the first branch's prediction" in message
    assert outcomes[0][0] != "fine"


def test_a_step_without_its_second_call_is_noticed_at_once() -> None:
    for kind, message in run("rank_work:outcome", cases=[Case(pipeline="flux")], tamper="no second call"):
        assert kind == "BadConfiguration"
        assert "not by its second" in message


def test_debug_runs_compare_the_latents_of_all_ranks_at_every_call() -> None:
    case = Case(pipeline="sdxl", batch=2)
    for (result,) in run("rank_work:generate", cases=[case], debug=True):
        assert [size for _, size in result["messages"]] == [32, 2 * 4 * 16 * 16 * 4] * 3
        assert torch.equal(result["latents"], sequential(case))


def test_debug_runs_stop_every_rank_when_latents_differ() -> None:
    for kind, message in run("rank_work:outcome", cases=[Case(pipeline="sdxl")], debug=True, tamper="other seed"):
        assert kind == "RanksDisagree"
        assert "rank 1 came with other latents than rank 0" in message


def test_a_rank_that_raises_in_mid_run_ends_the_others_within_the_time_out() -> None:
    with pytest.raises(RanksFailed) as failed:
        run("rank_work:generate", cases=[Case(pipeline="sdxl")], tamper="rank 1 raises", seconds=5, timeout=60)
    waiting, raising = failed.value.errors
    assert isinstance(raising, ValueError)
    assert isinstance(waiting, RuntimeError)
