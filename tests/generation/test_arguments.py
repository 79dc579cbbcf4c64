"""Arguments of a denoiser are cut by name: what is stacked, what is whole, and what is refused."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import tiny_pipelines
import torch

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.arguments import EXCEPTIONS, STACKED, WHOLE, Rows, conditions_in, cut, latent_of, named

UNET = tiny_pipelines.sdxl_unet()
SECOND = Rows(start=3, batch=3, total=6)
"""The second of two branches of three images."""


def rows(count: int, *more: int) -> torch.Tensor:
    return torch.arange(count).reshape(count, *[1] * len(more)).expand(count, *more)


def cut_one(name: str, value: Any) -> Any:
    return cut(UNET, {name: value}, SECOND)[name]


@pytest.mark.parametrize("name", ["sample", "encoder_hidden_states", "timestep", "class_labels", "attention_mask"])
def test_a_stacked_tensor_is_cut_to_the_rows_of_the_branch(name: str) -> None:
    value = rows(6, 2)
    part = cut_one(name, value)
    assert part[:, 0].tolist() == [3, 4, 5]
    assert part.data_ptr() == value[3:].data_ptr(), "a view, so that no memory is spent and its alignment is kept"


@pytest.mark.parametrize("value", [torch.tensor(7), torch.tensor([7])], ids=["no dimension", "size 1"])
def test_a_stacked_name_without_rows_is_the_same_for_all(value: torch.Tensor) -> None:
    assert cut_one("timestep", value) is value


@pytest.mark.parametrize("name", ["image_rotary_emb", "txt_ids", "img_ids", "ip_adapter_masks"])
def test_a_whole_tensor_is_never_cut_even_when_its_size_looks_like_the_rows(name: str) -> None:
    value = rows(6, 2)
    assert cut_one(name, value) is value


def test_lists_and_dictionaries_are_cut_by_the_names_inside_and_made_anew() -> None:
    added = {"text_embeds": rows(6, 2), "time_ids": rows(6, 6), "image_embeds": [rows(6, 1, 2)]}
    kwargs = {"scale": 0.5, "ip_adapter_masks": [rows(6, 4)]}
    residuals = (rows(6, 1), rows(6, 1))
    arguments = {
        "added_cond_kwargs": added,
        "cross_attention_kwargs": kwargs,
        "down_block_additional_residuals": residuals,
    }
    found = cut(UNET, arguments, SECOND)
    assert found["added_cond_kwargs"]["text_embeds"][:, 0].tolist() == [3, 4, 5]
    assert found["added_cond_kwargs"]["image_embeds"][0].shape[0] == 3
    assert found["cross_attention_kwargs"]["scale"] == 0.5
    assert found["cross_attention_kwargs"]["ip_adapter_masks"][0].shape[0] == 6
    assert [part.shape[0] for part in found["down_block_additional_residuals"]] == [3, 3]
    found["added_cond_kwargs"].pop("text_embeds")
    assert "text_embeds" in added


def test_what_is_no_tensor_passes_under_any_name() -> None:
    arguments = {"return_dict": False, "some_switch": True, "some_list": [1, "two"], "nothing": None}
    assert cut(UNET, arguments, SECOND) == arguments


def test_a_tensor_under_an_unknown_name_is_refused_with_name_and_class() -> None:
    for value in (rows(6, 2), [rows(6, 2)], {"inner": rows(6, 2)}):
        with pytest.raises(BadConfiguration, match=r"'(strange|inner)' of UNet2DConditionModel") as refused:
            cut_one("strange", value)
        assert refused.value.field == "spec.parallelism.conditioning"


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_a_stacked_tensor_of_another_size_is_an_error_not_a_guess(count: int) -> None:
    with pytest.raises(BadConfiguration, match=f"has {count} rows where 6 are expected"):
        cut_one("encoder_hidden_states", rows(count, 2))


def test_positional_arguments_get_their_names() -> None:
    sample, timestep = torch.zeros(2, 4, 8, 8), torch.tensor(5)
    found = named(UNET, (sample, timestep), {"encoder_hidden_states": sample, "return_dict": False})
    assert list(found) == ["sample", "timestep", "encoder_hidden_states", "return_dict"]
    assert latent_of(found, UNET) is sample


@pytest.mark.parametrize(("count", "batch", "conditions"), [(1, 1, 1), (6, 3, 2), (3, 1, 3), (9, 3, 3)])
def test_the_branches_in_a_call_are_its_rows_by_the_batch_size_announced(
    count: int, batch: int, conditions: int
) -> None:
    assert conditions_in(rows(count, 4), batch=batch, module=UNET) == conditions


@pytest.mark.parametrize(("count", "batch"), [(5, 3), (2, 3), (1, 2)])
def test_rows_that_are_no_multiple_of_the_batch_are_refused(count: int, batch: int) -> None:
    with pytest.raises(BadConfiguration, match=f"{count} rows for {batch} images"):
        conditions_in(rows(count, 4), batch=batch, module=UNET)


def test_no_name_is_both_stacked_and_whole_and_exceptions_name_real_classes() -> None:
    assert not STACKED & WHOLE
    assert all(hasattr(diffusers, owner) for owner, _ in EXCEPTIONS)
