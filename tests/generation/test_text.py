"""Per-rank text encoding: half the encoders' calls, and latents that are the same bit for bit."""

from __future__ import annotations

import pytest
import torch
from branch_cases import Case
from ranks import RankPool


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


NEGATIVE = {"negative_prompt": ["blurred", "dark"]}


@pytest.mark.parametrize("name", ["sdxl", "sd3", "pixart", "wan"])
def test_each_rank_encodes_its_own_branch_and_the_latents_are_those_of_encoding_everything(name: str) -> None:
    case = Case(pipeline=name, batch=2, arguments=NEGATIVE)
    shared = RankPool.of(2).run("text_work:generate", case=case, share=True)
    whole = RankPool.of(2).run("text_work:generate", case=case, share=False)
    for rank in (0, 1):
        for one, other in zip(shared[rank]["latents"], whole[rank]["latents"], strict=True):
            assert torch.equal(one, other)
        assert shared[rank]["reason"] is None
        first, *later = shared[rank]["ran"]
        assert first == whole[rank]["ran"][0], "the first batch shows how the pipeline encodes"
        assert [2 * count for count in later] == [first] * len(later)


def test_a_pipeline_that_mixes_the_branches_is_found_out_and_left_alone() -> None:
    case = Case(pipeline="pixart", batch=2, arguments=NEGATIVE)
    shared = RankPool.of(2).run("text_work:generate", case=case, share=True, mixing=True)
    whole = RankPool.of(2).run("text_work:generate", case=case, share=False, mixing=True)
    for rank in (0, 1):
        assert "mixes" in shared[rank]["reason"]
        assert all(torch.equal(*pair) for pair in zip(shared[rank]["latents"], whole[rank]["latents"], strict=True))


def test_encoders_that_are_called_once_a_prompt_are_left_alone() -> None:
    """SDXL has zeros for an empty negative prompt: there is nothing to share."""
    case = Case(pipeline="sdxl", batch=2, arguments={"negative_prompt": None})
    first, second = RankPool.of(2).run("text_work:generate", case=case, share=True)
    assert "1, 1 times" in first["reason"]
    assert torch.equal(first["latents"][0], second["latents"][0])
