"""Files that leave a pipeline: the right kind, readable by others, the same bytes each time."""

from __future__ import annotations

import io
import wave

import av
import numpy as np
import pytest
from PIL import Image

from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.generation import media
from frazil_jobs.generation.media import Kind

TEXT = {"prompt": "a red ring – «größer»", "seed": "7", "settings": '{"steps": 4}'}


def picture(height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, channels), dtype=np.float32)


def video(frames: int = 9, height: int = 32, width: int = 48) -> np.ndarray:
    ramp = np.linspace(0, 1, frames, dtype=np.float32)[:, None, None, None]
    return np.broadcast_to(ramp, (frames, height, width, 3)) * picture(height, width)[None]


def encode(array, kind, format):
    return media.encode(array, kind=kind, format=format, text=TEXT, frames_per_second=8, sampling_rate=16000)


def test_a_png_gives_back_its_pixels_and_says_how_it_was_made():
    array = picture()
    result = encode(array, Kind.PICTURE, "png")
    read = Image.open(io.BytesIO(result.data))
    assert result.content_type == "image/png"
    assert read.text == TEXT
    assert np.array_equal(np.asarray(read), (array * 255).round().astype(np.uint8))
    assert result.facts == {"width": "64", "height": "48"}


@pytest.mark.parametrize(("format", "tolerance"), [("jpeg", 12), ("webp", 30)])
def test_lossy_pictures_stay_near_their_pixels(format, tolerance):
    smooth = np.linspace(0, 1, 48 * 64 * 3, dtype=np.float32).reshape(48, 64, 3)
    result = encode(smooth, Kind.PICTURE, format)
    read = Image.open(io.BytesIO(result.data))
    assert read.format.lower() == format
    assert np.abs(np.asarray(read.convert("RGB")).astype(int) - smooth * 255).mean() < tolerance


def test_one_channel_becomes_grey_and_four_keep_their_alpha_except_in_jpeg():
    assert Image.open(io.BytesIO(encode(picture(channels=1), Kind.PICTURE, "png").data)).mode == "RGB"
    assert Image.open(io.BytesIO(encode(picture(channels=4), Kind.PICTURE, "png").data)).mode == "RGBA"
    assert Image.open(io.BytesIO(encode(picture(channels=4), Kind.PICTURE, "jpeg").data)).mode == "RGB"


@pytest.mark.parametrize(
    ("kind", "format", "array"),
    [
        (Kind.PICTURE, "png", picture()),
        (Kind.PICTURE, "jpeg", picture()),
        (Kind.PICTURE, "webp", picture()),
        (Kind.VIDEO, "mp4", video()),
        (Kind.SOUND, "wav", np.sin(np.arange(8000) / 20)[None]),
    ],
)
def test_the_same_array_gives_the_same_bytes(kind, format, array):
    assert encode(array, kind, format).data == encode(array.copy(), kind, format).data
    assert media.thumbnail(array, kind=kind).data == media.thumbnail(array.copy(), kind=kind).data


def test_an_mp4_is_h264_that_every_browser_plays_with_all_its_frames():
    result = encode(video(), Kind.VIDEO, "mp4")
    with av.open(io.BytesIO(result.data)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 8)
    assert len(frames) == 9
    assert frames[0].mean() < 30
    assert frames[-1].mean() > 100
    assert result.facts["seconds"] == "1.125"
    # the index is in front, so that a page can play while it loads
    assert result.data.index(b"moov") < result.data.index(b"mdat")


def test_an_odd_video_is_padded_to_even_sides_and_reports_the_size_that_was_generated():
    result = encode(video(height=33, width=47), Kind.VIDEO, "mp4")
    with av.open(io.BytesIO(result.data)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (48, 34)
    assert (result.facts["width"], result.facts["height"]) == ("47", "33")


def test_a_wav_gives_back_its_samples():
    sound = np.stack([np.sin(np.arange(1600) / 9), np.cos(np.arange(1600) / 9)]) * 0.5
    result = encode(sound, Kind.SOUND, "wav")
    with wave.open(io.BytesIO(result.data)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 16000, 2)
        read = np.frombuffer(file.readframes(1600), "<i2").reshape(1600, 2).T / 32767
    assert np.abs(read - sound).max() < 1 / 32767
    assert "gain" not in result.facts
    assert result.facts["seconds"] == "0.1"


def test_sound_above_full_scale_is_made_quieter_not_clipped():
    result = encode(np.sin(np.arange(1600) / 9) * 4, Kind.SOUND, "wav")
    with wave.open(io.BytesIO(result.data)) as file:
        read = np.frombuffer(file.readframes(1600), "<i2")
    assert np.count_nonzero(np.abs(read) == 32767) < 16  # clipped, it would be most of them
    assert float(result.facts["gain"]) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "array", "size"),
    [
        (Kind.PICTURE, picture(600, 300), (128, 256)),
        (Kind.PICTURE, picture(20, 30), (30, 20)),
        (Kind.VIDEO, video(3, 512, 512), (256, 256)),
        (Kind.SOUND, np.sin(np.arange(9000) / 20), (256, 128)),
        (Kind.SOUND, np.zeros((2, 5)), (256, 128)),
    ],
)
def test_a_thumbnail_is_a_webp_of_at_most_256_pixels(kind, array, size):
    read = Image.open(io.BytesIO(media.thumbnail(array, kind=kind).data))
    assert (read.format, read.size) == ("WEBP", size)


def test_a_sound_is_seen_in_its_thumbnail():
    loud = Image.open(io.BytesIO(media.thumbnail(np.sin(np.arange(9000) / 20), kind=Kind.SOUND).data))
    silent = Image.open(io.BytesIO(media.thumbnail(np.zeros(9000), kind=Kind.SOUND).data))
    assert np.asarray(loud.convert("L")).mean() < np.asarray(silent.convert("L")).mean() - 50


def test_numbers_that_overflowed_are_bad_input_that_names_the_dtype():
    array = picture()
    media.require_finite(array, what="prompt 3, image 0")
    array[3, 4, 1] = np.nan
    with pytest.raises(BadInput, match=r"spec\.model\.dtype: prompt 3, image 0.*bfloat16"):
        media.require_finite(array, what="prompt 3, image 0")


def test_a_flat_picture_is_blank_and_a_drawn_one_is_not():
    assert media.is_blank(np.zeros((4, 4, 3)))
    assert not media.is_blank(picture())


def test_the_kind_is_told_by_the_class_before_anything_loads():
    diffusers = pytest.importorskip("diffusers")
    for name, kind in {
        "StableDiffusionXLPipeline": Kind.PICTURE,
        "PixArtAlphaPipeline": Kind.PICTURE,
        "FluxPipeline": Kind.PICTURE,
        "WanPipeline": Kind.VIDEO,
        "LTXPipeline": Kind.VIDEO,
        "CogVideoXPipeline": Kind.VIDEO,
        "StableVideoDiffusionPipeline": Kind.VIDEO,
        "LattePipeline": Kind.VIDEO,
        "StableAudioPipeline": Kind.SOUND,
        "AudioLDM2Pipeline": Kind.SOUND,
    }.items():
        assert media.kind_of(getattr(diffusers, name)) is kind, name


def test_a_format_that_cannot_hold_the_output_names_those_that_can():
    with pytest.raises(BadConfiguration, match=r"spec\.output\.format: WanPipeline makes a video.*use mp4"):
        media.check_format(Kind.VIDEO, "png", pipeline="WanPipeline")
    with pytest.raises(BadConfiguration, match="png or jpeg or webp"):
        media.check_format(Kind.PICTURE, "mp4", pipeline="FluxPipeline")
    media.check_format(Kind.SOUND, "wav", pipeline="StableAudioPipeline")
