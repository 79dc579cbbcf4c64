"""Arrays into files: pictures (png, jpeg, webp), video (mp4) and sound (wav), and a thumbnail of each.

Every encoder here gives the same bytes for the same array and the same library versions: fixed settings, one thread,
no clock and no version string in the file. An image that is made again therefore has the sha256 of the first.

Arrays are what diffusers returns for `output_type="np"`: a picture is height × width × channels and a video frames ×
height × width × channels, both float in [0, 1]; sound is channels × samples (or samples), float in [-1, 1].
"""

from __future__ import annotations

import inspect
import io
import tempfile
import wave
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from frazil_jobs.base.exits import BadConfiguration, BadInput

JPEG_QUALITY: Final = 95
WEBP_QUALITY: Final = 92
THUMBNAIL_SIDE: Final = 256
THUMBNAIL_QUALITY: Final = 80
H264_CRF: Final = 17
"""x264's constant rate factor: visually lossless for most footage."""

_INK: Final = (36, 87, 130)
_PAPER: Final = (244, 247, 250)


class Kind(StrEnum):
    """What a pipeline gives."""

    PICTURE = "picture"
    VIDEO = "video"
    SOUND = "sound"


FORMATS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.PICTURE: ("png", "jpeg", "webp"),
    Kind.VIDEO: ("mp4",),
    Kind.SOUND: ("wav",),
}
CONTENT_TYPES: Final[Mapping[str, str]] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "wav": "audio/wav",
}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A file's bytes and what a reader of the manifest wants to know about it."""

    data: bytes
    content_type: str
    facts: Mapping[str, str] = field(default_factory=dict)


def kind_of(pipeline_class: type) -> Kind:
    """What a pipeline class gives, told from its call's own arguments, before any weights are loaded."""
    names = set(inspect.signature(pipeline_class.__call__).parameters)
    if names & {"audio_end_in_s", "audio_length_in_s"}:
        return Kind.SOUND
    if names & {"num_frames", "video_length"}:
        return Kind.VIDEO
    return Kind.PICTURE


def check_format(kind: Kind, format: str, *, pipeline: str) -> None:
    """Raise BadConfiguration when `format` can't hold what the pipeline gives."""
    fitting = FORMATS[kind]
    if format not in fitting:
        raise BadConfiguration(
            f"{pipeline} makes a {kind}, which can't be written as {format}",
            field="spec.output.format",
            remedy=f"use {' or '.join(fitting)}",
        )


def encode(
    array: NDArray[Any], *, kind: Kind, format: str, text: Mapping[str, str], frames_per_second: int, sampling_rate: int
) -> Encoded:
    """One output as a file. `text` (prompt, seed, settings) goes into the file where the format has a place for it."""
    if kind is Kind.SOUND:
        return encode_wav(array, sampling_rate=sampling_rate)
    if kind is Kind.VIDEO:
        return encode_mp4(array, frames_per_second=frames_per_second, text=text)
    return encode_picture(array, format=format, text=text)


def require_finite(array: NDArray[Any], *, what: str) -> None:
    """Raise BadInput when numbers overflowed: the same call gives the same result, so trying again is of no use."""
    if not np.isfinite(array).all():
        raise BadInput(
            f"{what} came out with values that are not numbers (the arithmetic overflowed)",
            field="spec.model.dtype",
            remedy="float16 is the usual cause: use bfloat16 or float32",
        )


def is_blank(array: NDArray[Any]) -> bool:
    """True for an output in which nothing changes: one flat colour, or silence. Said in the manifest, not an error:
    a prompt may ask for it, and safety checkers answer with black."""
    return bool(array.size) and float(np.ptp(array)) == 0.0


def pixels(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Floats in [0, 1] as bytes, rounded as diffusers rounds; one channel is repeated to three."""
    data = array if array.dtype == np.uint8 else (np.clip(array, 0.0, 1.0) * 255).round().astype(np.uint8)
    return np.repeat(data, 3, axis=-1) if data.shape[-1] == 1 else data


def encode_picture(array: NDArray[Any], *, format: str, text: Mapping[str, str]) -> Encoded:
    """A picture as png (lossless, with `text` inside), jpeg or webp."""
    picture = Image.fromarray(pixels(array))
    if format == "jpeg":
        picture = picture.convert("RGB")
    facts = {"width": str(picture.width), "height": str(picture.height)}
    options: dict[str, Any]
    if format == "png":
        options = {"pnginfo": _png_text(text), "compress_level": 6}
    elif format == "jpeg":
        options = {"quality": JPEG_QUALITY, "subsampling": 0}
    else:
        options = {"quality": WEBP_QUALITY, "method": 4}
    return Encoded(data=_saved(picture, format, **options), content_type=CONTENT_TYPES[format], facts=facts)


def _png_text(text: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for name, value in text.items():
        clean = value.replace("\0", "")
        if clean.isascii():
            info.add_text(name, clean)
        else:  # tEXt holds Latin-1 only
            info.add_itxt(name, clean)
    return info


def _saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=format.upper(), **options)
    return buffer.getvalue()


def encode_mp4(array: NDArray[Any], *, frames_per_second: int, text: Mapping[str, str]) -> Encoded:
    """A video as H.264 in mp4 (yuv420p, playable in every browser), on one thread: the bytes are always the same.

    yuv420p halves the colour planes, so an odd width or height is padded by repeating the last column or row; the
    facts name the size that was generated.
    """
    import av

    frames = pixels(array)[..., :3]
    count, height, width = frames.shape[:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    # A file and not a buffer: to put its index in front, the container reads what it wrote a second time.
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        with av.open(file.name, mode="w", format="mp4", options=options) as container:
            container.metadata["title"] = text.get("prompt", "")
            _write_frames(container, frames, frames_per_second)
        data = Path(file.name).read_bytes()
    facts = {
        "width": str(width),
        "height": str(height),
        "frames": str(count),
        "frames_per_second": str(frames_per_second),
        "seconds": _decimal(count / frames_per_second),
    }
    return Encoded(data=data, content_type=CONTENT_TYPES["mp4"], facts=facts)


def _write_frames(container: Any, frames: NDArray[np.uint8], frames_per_second: int) -> None:
    import av

    stream = container.add_stream("libx264", rate=frames_per_second)
    stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
    stream.options = {"crf": str(H264_CRF), "preset": "medium", "threads": "1", "flags": "+bitexact"}
    stream.codec_context.thread_count = 1
    for frame in frames:
        for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
            container.mux(packet)
    for packet in stream.encode():
        container.mux(packet)


def encode_wav(array: NDArray[Any], *, sampling_rate: int) -> Encoded:
    """Sound as 16-bit PCM. Where a peak above 1 would be clipped, the whole is made quieter and the gain is noted."""
    sound = np.atleast_2d(np.asarray(array, dtype=np.float64))
    peak = float(np.abs(sound).max()) if sound.size else 0.0
    gain = 1.0 / peak if peak > 1.0 else 1.0
    samples = np.round(sound * gain * 32767.0).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(2)
        file.setframerate(sampling_rate)
        file.writeframes(samples.T.tobytes())
    facts = {
        "channels": str(samples.shape[0]),
        "sampling_rate": str(sampling_rate),
        "seconds": _decimal(samples.shape[1] / sampling_rate),
    }
    return Encoded(
        data=buffer.getvalue(),
        content_type=CONTENT_TYPES["wav"],
        facts=facts if gain == 1.0 else {**facts, "gain": _decimal(gain)},
    )


def thumbnail(array: NDArray[Any], *, kind: Kind) -> Encoded:
    """A webp of at most 256 pixels a side: the picture, a video's first frame, or the sound's waveform."""
    if kind is Kind.SOUND:
        picture = _waveform(np.atleast_2d(np.asarray(array, dtype=np.float64)))
    else:
        picture = Image.fromarray(pixels(array[0] if kind is Kind.VIDEO else array))
        picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return Encoded(
        data=_saved(picture, "webp", quality=THUMBNAIL_QUALITY, method=4),
        content_type=CONTENT_TYPES["webp"],
        facts={"width": str(picture.width), "height": str(picture.height)},
    )


def _waveform(sound: NDArray[np.float64]) -> Image.Image:
    """The loudest and lowest sample behind each column of pixels, as a filled band."""
    width, height = THUMBNAIL_SIDE, THUMBNAIL_SIDE // 2
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    mono = sound.mean(axis=0)
    scale = max(float(np.abs(mono).max()) if mono.size else 0.0, 1e-9)
    edges = np.linspace(0, mono.size, width + 1).astype(int)
    for column in range(width):
        part = mono[edges[column] : max(edges[column + 1], edges[column] + 1)]
        low, high = (float(part.min()), float(part.max())) if part.size else (0.0, 0.0)
        middle = (height - 1) / 2
        draw.line(
            (column, round(middle - high / scale * middle), column, round(middle - low / scale * middle)), fill=_INK
        )
    return picture


def _decimal(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
