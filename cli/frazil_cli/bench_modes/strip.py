"""Pictures of each setting side by side, and below each what it differs from Exact, made visible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from PIL.Image import Image

MAGNIFIED: Final = 10
"""What differences are multiplied with: 40 dB, a hundredth, is a tenth of full brightness."""
_GAP: Final = 4
_CAPTION: Final = 28


def strip(columns: Mapping[str, Sequence[Any]], *, enlarged: int = 1) -> Image:
    """One column a setting. Pictures are (height, width, 3) in [0, 1]; the first column's are the exact ones.

    Each pixel becomes `enlarged` squared.

    Rows: of each prompt the picture, then its difference to the exact one, `MAGNIFIED`.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    exact = next(iter(columns.values()))
    height, width = (side * enlarged for side in exact[0].shape[:2])
    sheet = Image.new(
        "RGB", (len(columns) * (width + _GAP), _CAPTION + 2 * len(exact) * (height + _GAP)), color="white"
    )
    pen = ImageDraw.Draw(sheet)
    for across, (caption, pictures) in enumerate(columns.items()):
        left = across * (width + _GAP)
        pen.text((left, 2), caption.replace(":", "\n").replace(",", "\n"), fill="black", font_size=10)
        for down, (picture, reference) in enumerate(zip(pictures, exact, strict=True)):
            for below, values in enumerate((picture, np.abs(picture - reference) * MAGNIFIED)):
                values = values.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
                drawn = Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))
                sheet.paste(drawn, (left, _CAPTION + (2 * down + below) * (height + _GAP)))
    return sheet
