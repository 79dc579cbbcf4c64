"""Costs counted without weights: the published figures of SDXL and SD3, and counts that a person can check by hand."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from frazil_jobs.generation.costs import schemes
from frazil_jobs.generation.costs.counting import count
from frazil_jobs.generation.costs.models import CannotCount, arguments_of, published
from frazil_jobs.generation.costs.modes import shares_of
from frazil_jobs.generation.costs.schemes import Row, Size, cut_of, measured_size, rows_of


@functools.cache
def size_of(name: str, side: int = 1024) -> Size:
    return measured_size(published(name), side, side)


def rows(name: str, scheme: str, side: int = 1024) -> list[Row]:
    return [row for row in rows_of(size_of(name, side)) if row.scheme == scheme]


def test_a_kernel_a_product_and_an_attention_are_counted_as_on_paper() -> None:
    with torch.device("meta"):
        layers = nn.ModuleDict({"kernel": nn.Conv2d(3, 8, 3, padding=1), "product": nn.Linear(8, 5, bias=False)})

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = layers

            def forward(self, picture: torch.Tensor) -> torch.Tensor:
                tokens = self.layers["kernel"](picture).flatten(2).transpose(1, 2)[:, None]
                mixed = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
                return self.layers["product"](mixed)

        counted = count(Net(), torch.empty(2, 3, 4, 6))
    cells = 4 * 6
    kernel, product, attention = 2 * cells * 3 * 8 * 9, 2 * cells * 8 * 5, 2 * 2 * cells * cells * 8
    assert counted.inside["layers.kernel"] == kernel
    assert counted.inside["layers.product"] == product
    assert counted.macs == kernel + product + attention
    assert counted.returned(["layers.kernel"]) == 2 * 8 * cells


@pytest.mark.parametrize(
    ("name", "side", "tera"), [("sdxl", 1024, 3.38), ("sdxl", 2048, 17.95), ("sd3", 1024, 4.45), ("sd3", 2048, 31.96)]
)
def test_a_branch_of_the_published_models_costs_what_was_found_elsewhere(name: str, side: int, tera: float) -> None:
    assert size_of(name, side).branch / 1e12 == pytest.approx(tera, abs=0.005)


@pytest.mark.parametrize(("side", "tera"), [(1024, 5.24), (2048, 24.24)])
def test_a_decode_costs_what_the_page_says(side: int, tera: float) -> None:
    decode = size_of("sdxl", side).decode
    assert decode is not None
    assert decode / 1e12 == pytest.approx(tera, abs=0.005)


@pytest.mark.parametrize(("side", "share"), [(1024, 0.324), (2048, 0.247)])
def test_a_reusing_step_of_sdxl_costs_what_the_page_says(side: int, share: float) -> None:
    size = size_of("sdxl", side)
    assert shares_of(size.model.denoiser(), size.counted).reused == pytest.approx(share, abs=0.0005)


@pytest.mark.parametrize(("side", "inner"), [(1024, 0.563), (2048, 0.510)])
def test_the_inner_stage_of_sdxl_has_its_published_share(side: int, inner: float) -> None:
    size = size_of("sdxl", side)
    assert size.share(size.cut.inner) == pytest.approx(inner, abs=0.0005)
    assert size.share(size.cut.inner) + size.share(size.cut.outer) == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize(
    ("block", "share"),
    [
        *(("down_blocks.0", 0.019), ("down_blocks.1", 0.081), ("down_blocks.2", 0.216), ("mid_block", 0.118)),
        *(("up_blocks.1", 0.159), ("up_blocks.2", 0.048), ("up_blocks.0.upsamplers.0", 0.018)),
    ],
)
def test_the_blocks_of_sdxl_have_their_published_shares(block: str, share: float) -> None:
    assert size_of("sdxl").share([block]) == pytest.approx(share, abs=0.0006)


def test_the_halves_of_sd3_are_equal() -> None:
    size = size_of("sd3")
    assert size.share(size.cut.inner) == pytest.approx(0.5, abs=0.002)
    assert len(size.cut.inner) == len(size.cut.outer) == 12


def test_the_released_window_of_sdxl_sends_33_times_what_it_needs() -> None:
    size = size_of("sdxl")
    released, needed = size.bytes_of(size.cut.wrapped), size.bytes_of(size.cut.crossing)
    assert released / 1e6 == pytest.approx(128.6, abs=0.05)
    assert needed / 1e6 == pytest.approx(3.93, abs=0.01)
    assert released / needed == pytest.approx(32.7, abs=0.1)


def test_our_window_stays_below_4_mb_a_step_for_sdxl_and_below_14_for_sd3() -> None:
    window = rows("sdxl", "Hybrid")[0].bytes_per_step - size_of("sdxl").latent_bytes
    assert window < 4_000_000
    assert rows("sd3", "Hybrid")[0].bytes_per_step < 14_200_000
    assert size_of("sd3").bytes_of(size_of("sd3").cut.crossing) == 2 * (4096 + 333) * 1536


def bound(name: str, row: Row) -> float:
    return rows(name, "one GPU")[0].macs / row.macs


def test_the_bounds_are_those_of_the_operation_counts() -> None:
    """50 steps of f: exact 50; Hybrid k = 5 50 - 5 · 0.437; Guided r = 2 from step 12 50 - 19 · 0.676; and so on."""
    assert bound("sdxl", rows("sdxl", "Exact")[0]) == pytest.approx(2.0)
    assert bound("sdxl", rows("sdxl", "Hybridiff, released")[0]) == pytest.approx(2.07, abs=0.005)
    for row, window in zip(rows("sdxl", "Hybrid"), (5, 10, 20), strict=True):
        assert bound("sdxl", row) == pytest.approx(100 / (50 - window * 0.437), abs=0.005)
    reusing = {2: 19, 3: 25, 4: 28, 5: 30}
    for row, (every, steps) in zip(rows("sdxl", "Guided"), reusing.items(), strict=False):
        assert row.setting == f"r = {every}"
        assert bound("sdxl", row) == pytest.approx(100 / (50 - steps * 0.676), abs=0.01)
    assert bound("sdxl", rows("sdxl", "AsyncDiff")[0]) == pytest.approx(1.75, abs=0.01)


def test_the_same_reuse_on_one_gpu_wins_half_as_much() -> None:
    for two, one in zip(rows("sd3", "Guided"), rows("sd3", "the same reuse on one GPU"), strict=False):
        if two.gpus == 2:
            assert one.macs == pytest.approx(2 * two.macs)


def test_asyncdiff_sends_what_hybridiff_measured_of_it() -> None:
    """9.83 GB an image at 38 steps after 12 of warm-up, SDXL; 1.29 GB at 47 or 48 steps, SD3 (its Table 1)."""
    assert 38 * rows("sdxl", "AsyncDiff")[0].bytes_per_step / 1e9 == pytest.approx(9.83, rel=0.01)
    assert 47 * rows("sd3", "AsyncDiff")[0].bytes_per_step / 1e9 == pytest.approx(1.29, rel=0.05)


def test_all_that_crosses_in_a_step_is_what_the_page_says() -> None:
    """Megabytes, with the latents: Hybrid's window, AsyncDiff, the release, the split of guidance."""
    for name, scheme, megabytes in (
        *(("sdxl", "Exact", 0.26), ("sdxl", "Hybrid", 4.06), ("sdxl", "AsyncDiff", 257.4)),
        *(("sdxl", "Hybridiff, released", 128.7), ("sd3", "Exact", 1.05), ("sd3", "Hybrid", 14.13)),
        ("sd3", "AsyncDiff", 28.26),
    ):
        assert rows(name, scheme)[0].bytes_per_step / 1e6 == pytest.approx(megabytes, abs=0.05), (name, scheme)
    assert size_of("sd3").bytes_of(size_of("sd3").cut.crossing) / 1e6 == pytest.approx(13.6, abs=0.05)
    split = {name: rows(name, "Exact")[0].bytes_per_step for name in ("sdxl", "sd3")}
    ratios = [
        row.bytes_per_step / split["sdxl"] for scheme in ("AsyncDiff", "DistriFusion") for row in rows("sdxl", scheme)
    ]
    assert all(ratio > 900 for ratio in ratios)
    assert rows("sd3", "AsyncDiff")[0].bytes_per_step / split["sd3"] == pytest.approx(27, abs=0.5)
    assert rows("sd3", "xDiT Ulysses")[0].bytes_per_step / split["sd3"] > 1000


def test_the_patches_of_distrifusion_share_nearly_everything_and_send_keys_and_values() -> None:
    two, four, _ = rows("sdxl", "DistriFusion")
    assert bound("sdxl", two) == pytest.approx(2.0, abs=0.02)
    assert bound("sdxl", four) == pytest.approx(4.0, abs=0.05)
    keys_and_values = 2 * (2 * 4096 * 640 * 10 + 2 * 1024 * 1280 * 60)
    assert 2 * keys_and_values < two.bytes_per_step < 1.05 * 2 * keys_and_values


def test_every_row_is_said_of_a_scheme_that_fits_the_model() -> None:
    unet, transformer = ({row.scheme for row in rows_of(size_of(name))} for name in ("sdxl", "sd3"))
    assert "DistriFusion" in unet - transformer
    assert {"PipeFusion", "xDiT Ulysses"} <= transformer - unet
    assert {"Exact", "Hybrid", "Guided", "the same reuse on one GPU", "AsyncDiff"} <= unet & transformer


def test_no_scheme_computes_less_than_its_gpus_times_its_bound_allow() -> None:
    """A bound above the number of GPUs is reuse and not sharing: only modes that skip work have one."""
    for name in ("sdxl", "sd3"):
        for row in rows_of(size_of(name)):
            if row.exact:
                assert bound(name, row) <= row.gpus + 1e-9, row


def test_a_denoiser_of_unknown_arguments_is_refused_by_name() -> None:
    with pytest.raises(CannotCount, match="UNet1DModel"):
        arguments_of(_Unknown(), rows=8, columns=8, text_tokens=4)
    assert schemes.STEPS == 50


class _Unknown:
    config: None = None


_Unknown.__name__ = "UNet1DModel"


def test_the_cut_names_modules_that_there_are() -> None:
    for name in ("sdxl", "sd3"):
        counted = size_of(name).counted
        cut = cut_of(counted)
        ran = {layer.name for layer in counted.layers}
        assert set(cut.inner) | set(cut.outer) | set(cut.crossing) <= ran | {""}, name
