"""Decoding beside the next batch: the same bytes, whatever the pipeline does with its picture, and in another thread."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from branch_cases import Case, build, call_of

from frazil_jobs.generation.decode.deferred import DeferredOutput, Picture, defer_decode, resolved


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def call(pipe: Any, case: Case, **changes: Any) -> Any:
    return pipe(**{**call_of(case), "output_type": "np", **changes})


def in_another_thread(output: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(resolved(output)))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("name", ["sdxl", "sd3", "pixart", "flux"])
def test_a_picture_made_later_and_elsewhere_has_the_bytes_of_one_made_in_turn(name: str) -> None:
    case = Case(pipeline=name, batch=2)
    stock = call(build(case), case).images
    pipe = build(case)
    deferral = defer_decode(pipe)
    with deferral.active():
        first, second = call(pipe, case).images, call(pipe, case).images
    assert isinstance(first, DeferredOutput)
    for output in (first, second):
        assert np.array_equal(in_another_thread(output), stock)
    assert np.array_equal(call(pipe, case).images, stock), "outside of the context everything is in turn"


def test_the_decoder_has_not_run_when_the_call_returns() -> None:
    case = Case(pipeline="sdxl")
    pipe = build(case)
    ran: list[int] = []
    pipe.vae.decoder.register_forward_hook(lambda *_: ran.append(1))
    deferral = defer_decode(pipe)
    with deferral.active():
        output = call(pipe, case).images
    assert not ran
    resolved(output)
    resolved(output)
    assert ran == [1], "made once, however often it is asked for"


def test_a_pipeline_that_touches_its_picture_gets_it_there_and_then() -> None:
    case = Case(pipeline="sdxl")

    class Inverting:
        def apply_watermark(self, picture: torch.Tensor) -> torch.Tensor:
            return -picture

    stock = build(case)
    stock.watermark = Inverting()
    pipe = build(case)
    pipe.watermark = Inverting()
    deferral = defer_decode(pipe)
    with deferral.active():
        images = call(pipe, case).images
    assert isinstance(images, np.ndarray)
    assert np.array_equal(images, call(stock, case).images)


def test_video_and_sound_come_out_as_they_always_did() -> None:
    for name, field in (("wan", "frames"), ("stable-audio", "audios")):
        case = Case(pipeline=name)
        stock = getattr(call(build(case), case), field)
        pipe = build(case)
        deferral = defer_decode(pipe)
        with deferral.active():
            output = getattr(call(pipe, case), field)
        assert np.array_equal(resolved(output), stock), name


def test_a_decoder_whose_type_is_changed_for_the_call_decodes_in_turn() -> None:
    """SDXL in float16 widens its decoder for the decode and narrows it right after."""
    case = Case(pipeline="sdxl")
    pipe = build(case)
    deferral = defer_decode(pipe)
    pipe.vae.double()
    with deferral.active():
        picture = pipe.vae.decode(torch.zeros(1, 4, 8, 8, dtype=torch.float64), return_dict=False)[0]
    assert not isinstance(picture, Picture)


def test_anything_done_with_a_stand_in_is_done_with_the_picture() -> None:
    picture = torch.arange(6.0).reshape(2, 3)
    assert Picture.of(lambda: picture).shape == (2, 3)
    assert torch.equal(Picture.of(lambda: picture) + 1, picture + 1)
    assert torch.equal(torch.cat([Picture.of(lambda: picture), picture]), torch.cat([picture, picture]))
    assert type(Picture.of(lambda: picture) * 2) is torch.Tensor


def test_an_error_of_the_decode_reaches_who_asks_for_the_picture() -> None:
    def fails() -> torch.Tensor:
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        Picture.of(fails).sum()
