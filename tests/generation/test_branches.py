"""Two ranks, a branch each, give the bytes that one process gives which evaluates the branches one after the other."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from branch_cases import Case, build, call_of
from ranks import RankPool
from sequential import STACKED, branches_one_by_one, pairs_watched

ROUNDING = 1e-5
"""Largest relative difference to the stock call, which evaluates the branches as one batch, in fp32."""
DISTINCT = 0.05
"""Least relative difference of the branches' first predictions: with less, a mix-up of branches could pass."""

SAMPLERS = [
    *(("sdxl", scheduler) for scheduler in ("ddim", "euler", "euler-ancestral", "dpm++")),
    *(("pixart", scheduler) for scheduler in ("ddim", "euler", "euler-ancestral", "dpm++")),
    *(("sd3", scheduler) for scheduler in ("flow-euler", "flow-dpm++")),
    *(("wan", scheduler) for scheduler in ("flow-euler", "flow-dpm++")),
    ("flux", "flow-euler"),
]
SAMPLED = [
    Case(pipeline=pipeline, scheduler=scheduler, batch=batch) for pipeline, scheduler in SAMPLERS for batch in (1, 3)
]
PASSED_THROUGH = [
    Case(pipeline="sdxl", batch=2, arguments={"guidance_rescale": 0.7}),
    Case(pipeline="sdxl", batch=2, variant="lora"),
    Case(pipeline="sdxl", batch=2, variant="ip-adapter"),
    Case(pipeline="sdxl", batch=2, variant="img2img"),
    Case(pipeline="sdxl", batch=2, variant="inpaint"),
    Case(pipeline="sd3", batch=2, variant="img2img"),
    Case(pipeline="sdxl-controlnet", batch=1),
    Case(pipeline="sdxl-controlnet", batch=3),
    Case(pipeline="sdxl-controlnet", batch=2, arguments={"guess_mode": True}),
    Case(pipeline="sdxl-multi-controlnet", batch=2),
    Case(pipeline="instruct-pix2pix", batch=1),
    Case(pipeline="instruct-pix2pix", batch=3),
    Case(pipeline="ltx", batch=2, arguments={"guidance_rescale": 0.3}),
    Case(pipeline="cogvideox", batch=2),
    Case(pipeline="stable-audio", batch=2),
    Case(pipeline="flux", batch=2, variant="img2img"),
    Case(pipeline="flux", batch=2, variant="inpaint"),
    Case(pipeline="wan-two", batch=2, steps=4),
    Case(pipeline="qwen", batch=2),
]


@functools.lru_cache(maxsize=256)
def _split(pipeline: str, key: str) -> list[dict[str, Any]]:
    """What each of two ranks made of a case."""
    case = _BY_KEY[pipeline, key]
    return [results[0] for results in RankPool.of(2).run("rank_work:generate", cases=[case])]


_BY_KEY: dict[tuple[str, str], Case] = {}


def split(case: Case) -> list[dict[str, Any]]:
    """What each of two ranks made of `case`, once for all tests."""
    _BY_KEY[case.pipeline, repr(case)] = case
    return _split(case.pipeline, repr(case))


@functools.cache
def reference(key: str) -> tuple[torch.Tensor, list[float]]:
    """The latents of a case with its branches one after the other, and how far apart these were."""
    case = next(case for case in (*SAMPLED, *PASSED_THROUGH, *_BY_KEY.values()) if repr(case) == key)
    pipe = build(case)
    branches = 3 if case.pipeline == "instruct-pix2pix" else 2
    if case.pipeline in STACKED:
        context: Any = branches_one_by_one(pipe, case.pipeline, branches=branches, batch=case.batch)
    else:
        context = pairs_watched(pipe)
    with context as seen:
        latents = pipe(**call_of(case))[0]
    return latents, seen.distances


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("case", SAMPLED, ids=str)
def test_two_ranks_equal_sequential_branches_bit_for_bit_with_every_sampler(case: Case) -> None:
    expected, distances = reference(repr(case))
    assert distances[0] > DISTINCT
    for rank in split(case):
        assert torch.equal(rank["latents"], expected)


@pytest.mark.parametrize("case", PASSED_THROUGH, ids=str)
def test_two_ranks_equal_sequential_branches_bit_for_bit_whatever_else_is_passed(case: Case) -> None:
    expected, distances = reference(repr(case))
    assert distances[0] > DISTINCT
    for rank in split(case):
        assert torch.equal(rank["latents"], expected)


@pytest.mark.parametrize("case", [*SAMPLED, *PASSED_THROUGH], ids=str)
def test_two_ranks_agree_with_the_stock_call_to_rounding(case: Case) -> None:
    stock = build(case)(**call_of(case))[0]
    latents = split(case)[0]["latents"]
    assert latents.shape == stock.shape
    assert (latents - stock).abs().max() <= ROUNDING * stock.abs().max()


@pytest.mark.parametrize("pipeline", ["sdxl", "sd3", "pixart", "flux", "wan"])
def test_two_ranks_give_the_same_pictures_as_sequential_branches(pipeline: str) -> None:
    case = Case(pipeline=pipeline, arguments={"output_type": "np"})
    _BY_KEY[pipeline, repr(case)] = case
    expected, _ = reference(repr(case))
    assert (split(case)[0]["latents"] == expected).all()


@pytest.mark.parametrize("case", [*SAMPLED, *PASSED_THROUGH], ids=str)
def test_each_rank_evaluates_its_own_branches_and_sends_one_prediction_a_step(case: Case) -> None:
    ranks = split(case)
    conditions = ranks[0]["guidance"].conditions
    own = [2, 1] if conditions == 3 else [1, 1]
    for rank, result in enumerate(ranks):
        calls = len(result["inputs"])
        steps = calls // 2 if result["guidance"].style == "two-call" else calls
        learnt = _predictions_of_unknown_form(case, result) if rank == 1 else 0
        assert result["rows"] == [case.batch] * (steps * own[rank] + learnt)
        size = _prediction_bytes(case) * max(own)
        assert result["messages"] == [("all_gather_into_tensor", size)] * steps


def _predictions_of_unknown_form(case: Case, result: dict[str, Any]) -> int:
    """In two calls, rank 1 evaluates each denoiser's first call too, to learn the form of its prediction."""
    if result["guidance"].style != "two-call":
        return 0
    return 2 if case.pipeline == "wan-two" else 1


@functools.cache
def _prediction_bytes_of(pipeline: str, key: str) -> int:
    case = _BY_KEY[pipeline, key]
    pipe = build(case)
    sizes: list[int] = []
    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    denoiser.register_forward_hook(
        lambda _m, _a, output: sizes.append(output[0].numel() * 4 // output[0].shape[0] * case.batch)
    )
    pipe(**{**call_of(case), "num_inference_steps": case.steps})
    return sizes[0]


def _prediction_bytes(case: Case) -> int:
    """Bytes of what the stock pipeline's denoiser predicts for one branch, fp32."""
    return _prediction_bytes_of(case.pipeline, repr(case))


@pytest.mark.parametrize("case", [*SAMPLED, *PASSED_THROUGH], ids=str)
def test_both_ranks_hold_the_same_latents_at_every_step(case: Case) -> None:
    first, second = split(case)
    assert len(first["inputs"]) == len(second["inputs"]) > 0
    assert all(map(torch.equal, first["inputs"], second["inputs"]))
