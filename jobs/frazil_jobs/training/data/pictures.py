"""A picture as a task sees it: a square of so many pixels, numbers of a known mean."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from frazil_jobs.base.exits import BadInput


@dataclass(frozen=True, kw_only=True)
class Picture:
    """How pictures are prepared: the shorter side scaled to `size`, the middle cut out, then (x - mean) / deviation of
    values between 0 and 1."""

    size: int
    channels: int = 3
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    deviation: Sequence[float] = (0.5, 0.5, 0.5)

    def tensor(self, image: Image.Image) -> torch.Tensor:
        """Pixels (channels, size, size), float32."""
        square = _square(image.convert("L" if self.channels == 1 else "RGB"), self.size)
        values = np.asarray(square, dtype=np.float32).reshape(self.size, self.size, self.channels) / 255.0
        shift = np.asarray(self.mean, dtype=np.float32)
        scale = np.asarray(self.deviation, dtype=np.float32)
        return torch.from_numpy((values - shift) / scale).permute(2, 0, 1).contiguous()


def _square(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    left, top = (wide - size) // 2, (high - size) // 2
    return image.resize((wide, high), Image.Resampling.LANCZOS).crop((left, top, left + size, top + size))


def opened(value: Any, *, base: Path, where: str) -> Image.Image:
    """The picture that a row holds: decoded, bytes, `{bytes, path}`, or a path beside the data. Raises BadInput."""
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    try:
        if isinstance(value, bytes | bytearray):
            return Image.open(io.BytesIO(value))
        if isinstance(value, str):
            path = (base / value).resolve()
            if not path.is_relative_to(base.resolve()):
                raise BadInput(f"{where}: {value!r} lies outside of the data set", field="spec.dataset.uri")
            return Image.open(path)
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(f"{where}: {error}", field="spec.dataset.columns.image") from None
    raise BadInput(
        f"{where} is a {type(value).__name__}, not a picture",
        field="spec.dataset.columns.image",
        remedy="store a picture's bytes, or its path beside the file",
    )
