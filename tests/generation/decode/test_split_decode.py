"""The shared decode: what every rank gets equals the plain decode to rounding, and is the same on all of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_pipelines
import torch
from decode_work import DECODERS, latent_of, vae_of
from ranks import RankPool

from frazil_jobs.generation.decode.rows import Rows
from frazil_jobs.generation.decode.split import LEAST_ROWS, split_decode
from frazil_jobs.generation.decode.structure import why_whole
from frazil_jobs.generation.groups import RankGroups, one_rank
from frazil_jobs.generation.rank_grid import RankGrid

ROUNDING = 1e-5
SIZES = [(9, 6, 2), (8, 5, 1), (4, 4, 1)]
"""Rows, columns and batch: rows that don't share evenly, and sizes that change from one picture to the next."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def plain(name: str, size: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with torch.no_grad():
        picture: torch.Tensor = vae_of(name).to(dtype).decode(latent_of(*size).to(dtype), return_dict=False)[0]
    return picture


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return float((one.double() - other.double()).abs().max() / other.double().abs().max())


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", DECODERS)
def test_the_shared_decode_equals_the_plain_one_and_is_the_same_on_every_rank(name: str, ranks: int) -> None:
    by_rank = RankPool.of(ranks).run("decode_work:decode", name=name, ranks=ranks, sizes=SIZES)
    for number, size in enumerate(SIZES):
        pictures = [results[number]["picture"] for results in by_rank]
        assert distance(pictures[0], plain(name, size)) <= ROUNDING
        assert all(torch.equal(picture, pictures[0]) for picture in pictures[1:])
        assert by_rank[0][number]["messages"], "the ranks did share it"


def test_without_statistics_of_all_rows_the_picture_would_differ_by_far_more_than_rounding() -> None:
    """What the test above would see: two halves decoded alone are no decode."""
    name = "three levels with attention"
    latent = latent_of(8)
    with torch.no_grad():
        halves = torch.cat([vae_of(name).decode(half).sample for half in latent.split(4, dim=2)], dim=2)
    assert distance(halves, plain(name, (8, 6, 1))) > 1000 * ROUNDING


def test_in_bfloat16_the_distance_is_that_of_its_rounding() -> None:
    name, size = "three levels with attention", (8, 6, 1)
    first, _ = RankPool.of(2).run("decode_work:decode", name=name, ranks=2, sizes=[size], dtype="bfloat16")
    exact = plain(name, size)
    own_error = distance(plain(name, size, torch.bfloat16), exact)
    assert first[0]["picture"].dtype == torch.bfloat16
    assert distance(first[0]["picture"], exact) <= 2 * own_error


def test_a_picture_with_too_few_rows_is_decoded_whole_by_the_leader_without_a_message_and_bit_for_bit() -> None:
    name, sizes = "three levels with attention", [(2 * LEAST_ROWS - 1, 4, 1), (2 * LEAST_ROWS, 4, 1)]
    first, second = RankPool.of(2).run("decode_work:decode", name=name, ranks=2, sizes=sizes, least_rows=LEAST_ROWS)
    assert not first[0]["messages"]
    assert torch.equal(first[0]["picture"], plain(name, sizes[0]))
    assert second[0]["picture"].shape == first[0]["picture"].shape
    assert first[1]["messages"]


def test_once_the_hooks_are_off_the_decoder_is_as_it_was() -> None:
    name = "three levels with attention"
    first, second = RankPool.of(2).run("decode_work:decode", name=name, ranks=2, sizes=[(8, 6, 1)])
    for results in (first, second):
        assert torch.equal(results[-1]["picture"], plain(name, (8, 6, 1)))


def test_a_rank_sends_its_outermost_rows_and_not_its_picture() -> None:
    """Halos and statistics are small beside what a whole gather of each layer would send."""
    name, size = "two levels without attention", (32, 16, 1)
    first, _ = RankPool.of(2).run("decode_work:decode", name=name, ranks=2, sizes=[size])
    sent = first[0]["messages"]
    gathers = [count for kind, count in sent if kind == "all_gather_into_tensor"]
    picture = 3 * 64 * 32 * 4
    assert max(gathers) == picture // 2, "the picture's rows themselves are the largest message"
    assert sum(gathers) - max(gathers) < picture // 16


@pytest.mark.parametrize(
    ("pipeline", "why"),
    [("wan", "AutoencoderKLWan"), ("cogvideox", "AutoencoderKLCogVideoX"), ("stable-audio", "AutoencoderOobleck")],
)
def test_a_decoder_of_unknown_structure_is_left_alone_and_the_reason_is_said(pipeline: str, why: str) -> None:
    reason = why_whole(tiny_pipelines.build(pipeline).vae)
    assert reason is not None
    assert why in reason


def test_a_layer_that_looks_further_than_is_known_keeps_the_decoder_whole() -> None:
    vae = vae_of("two levels without attention")
    vae.decoder.conv_out.padding_mode = "reflect"
    assert "conv_out" in str(why_whole(vae))
    vae = vae_of("two levels without attention")
    vae.decoder.conv_act = torch.nn.InstanceNorm2d(8)
    assert "unknown reach" in str(why_whole(vae))


@pytest.mark.parametrize("pipeline", ["sdxl", "sd3", "pixart", "flux"])
def test_the_decoders_of_the_usual_picture_pipelines_can_be_shared(pipeline: str) -> None:
    assert why_whole(tiny_pipelines.build(pipeline).vae) is None


def test_it_can_be_turned_off_and_one_rank_has_nobody_to_share_with() -> None:
    pipe = SimpleNamespace(vae=vae_of("one level, as of SD3"))
    two = RankGroups(grid=RankGrid(conditioning=2), rank=0, device=torch.device("cpu"))
    assert split_decode(pipe, two, wanted=False).reason == "it is turned off"
    assert split_decode(pipe, one_rank()).reason == "there is one rank"
    assert split_decode(SimpleNamespace(), two).reason is not None


@pytest.mark.parametrize(("height", "ranks"), [(9, 2), (7, 4), (128, 3), (5, 5)])
def test_rows_are_shared_whole_in_order_and_evenly(height: int, ranks: int) -> None:
    rows = Rows(height, ranks)
    assert [row for rank in range(ranks) for row in rows.of(rank)] == list(range(height))
    assert max(rows.counts) - min(rows.counts) <= 1
