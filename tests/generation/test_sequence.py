"""Sequence parallelism: which models have it, and that it changes nothing beyond rounding, beside the branch split too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_pipelines
import torch
from branch_cases import Case, build, call_of
from ranks import RankPool

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.sequence import check_sequence, planned

ROUNDING = 1e-5
EVEN = {"height": 32, "width": 16}
"""A size at which the tiny Wan has an even number of tokens."""
CASES = [
    Case(pipeline="flux", batch=2),
    Case(pipeline="flux-distilled"),
    Case(pipeline="wan", batch=2, arguments=EVEN),
    Case(pipeline="wan-two", arguments=EVEN),
    Case(pipeline="ltx", batch=2),
    Case(pipeline="qwen", batch=2),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def folder_of(name: str, folder: Path) -> Path:
    """The configs of a pipeline folder, without weights."""
    pipe = tiny_pipelines.build(name)
    pipe.save_config(folder)
    for component in ("unet", "transformer", "transformer_2"):
        if getattr(pipe, component, None) is not None:
            getattr(pipe, component).save_config(folder / component)
    return folder


def agrees(result: dict[str, Any], case: Case) -> bool:
    stock = build(case)(**call_of(case))[0]
    return bool((result["latents"] - stock).abs().max() <= ROUNDING * stock.abs().max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_ranks_with_a_part_of_the_tokens_each_agree_with_one_rank(case: Case) -> None:
    first, second = RankPool.of(2).run("rank_work:generate", cases=[case], conditioning=1, sequence=2)
    assert agrees(first[0], case)
    assert torch.equal(first[0]["latents"], second[0]["latents"])


@pytest.mark.parametrize("case", [case for case in CASES if case.pipeline != "flux-distilled"], ids=str)
def test_four_ranks_with_a_branch_and_a_part_of_the_tokens_each_agree_with_one_rank(case: Case) -> None:
    ranks = RankPool.of(4).run("rank_work:generate", cases=[case], conditioning=2, sequence=2, debug=True)
    assert agrees(ranks[0][0], case)
    assert all(torch.equal(rank[0]["latents"], ranks[0][0]["latents"]) for rank in ranks)


def test_tokens_that_ranks_cannot_share_evenly_are_refused_on_every_rank() -> None:
    odd = Case(pipeline="wan", arguments={"height": 16, "width": 16})
    for kind, message in RankPool.of(2).run("rank_work:outcome", cases=[odd], conditioning=1, sequence=2):
        assert kind == "BadConfiguration"
        assert "multiple of 2" in message


@pytest.mark.parametrize("name", ["sdxl", "sd3", "pixart", "cogvideox", "stable-audio"])
def test_a_model_without_a_plan_is_refused_by_its_class_before_weights_are_read(name: str, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    owner = (index.get("unet") or index["transformer"])[1]
    with pytest.raises(BadConfiguration, match=owner) as refused:
        check_sequence(folder, 2)
    assert refused.value.field == "spec.parallelism.sequence"
    check_sequence(folder, 1)


@pytest.mark.parametrize("name", ["flux", "wan", "wan-two", "ltx", "qwen"])
def test_a_model_with_a_plan_passes(name: str, tmp_path: Path) -> None:
    check_sequence(folder_of(name, tmp_path), 2)


def test_more_ranks_than_heads_can_be_shared_by_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="the 4 attention heads of LTXVideoTransformer3DModel"):
        check_sequence(folder_of("ltx", tmp_path), 3)


def test_the_models_with_a_plan_are_known() -> None:
    assert {
        "FluxTransformer2DModel",
        "WanTransformer3DModel",
        "LTXVideoTransformer3DModel",
        "QwenImageTransformer2DModel",
    } <= set(planned())
