"""Reads a picture: colour, shape, size and place from the pixels, by plain image analysis. Knows nothing of the model.

The shape is what differs from the ground (the median of the border). Colour is the nearest of the eight; place and size
come from the extent; the shape from how much of its bounding square each of five ideal masks covers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from draw import COLOURS, PIXELS, PLACES, RADII, Scene

_CONTRAST = 45.0
"""How far, in RGB distance, a pixel must be from the ground to count as part of the shape."""
_FEWEST_PIXELS = 30
_EXTENT_LIMIT = 22.0
"""Between the extents (pixels) of small and large shapes: 2 x 8 and 2 x 14 of half extent."""


@dataclass(frozen=True)
class Reading:
    """What was seen; None where nothing was."""

    size: str | None
    colour: str | None
    shape: str | None
    place: str | None

    def right(self, scene: Scene) -> dict[str, bool]:
        """Which of the four agree with `scene`."""
        return {name: getattr(self, name) == getattr(scene, name) for name in ("colour", "shape", "size", "place")}


NOTHING = Reading(None, None, None, None)


def read(picture: np.ndarray) -> Reading:
    """Read a picture: uint8, (64, 64, 3)."""
    pixels = picture.astype(np.float64)
    border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3), pixels[:, :2].reshape(-1, 3)])
    mask = np.linalg.norm(pixels - np.median(border, axis=0), axis=2) > _CONTRAST
    mask = _largest_part(mask)
    if mask.sum() < _FEWEST_PIXELS:
        return NOTHING
    rows, columns = np.where(mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    extent = max(bottom - top, right - left)
    return Reading(
        size="small" if extent < _EXTENT_LIMIT else "large",
        colour=_colour(pixels, mask),
        shape=_shape(mask[top:bottom, left:right]),
        place=_place((left + right) / 2, (top + bottom) / 2),
    )


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest part whose pixels touch (8 neighbours); speckles are left out."""
    best, seen = np.zeros_like(mask), np.zeros_like(mask)
    for start in zip(*np.where(mask), strict=True):
        if seen[start]:
            continue
        part, stack = np.zeros_like(mask), [start]
        seen[start] = True
        while stack:
            row, column = stack.pop()
            part[row, column] = True
            for y in range(max(0, row - 1), min(PIXELS, row + 2)):
                for x in range(max(0, column - 1), min(PIXELS, column + 2)):
                    if mask[y, x] and not seen[y, x]:
                        seen[y, x] = True
                        stack.append((y, x))
        if part.sum() > best.sum():
            best = part
    return best


def _colour(pixels: np.ndarray, mask: np.ndarray) -> str:
    """The nearest colour to the median of the inner pixels (edges are mixed with the ground)."""
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    chosen = pixels[inner if inner.sum() >= 8 else mask]
    middle = np.median(chosen, axis=0)
    return min(COLOURS, key=lambda name: float(np.linalg.norm(middle - np.array(COLOURS[name]))))


def _place(x: float, y: float) -> str:
    return min(PLACES, key=lambda name: (PLACES[name][0] - x) ** 2 + (PLACES[name][1] - y) ** 2)


def _ideal_masks(count: int = 24) -> dict[str, np.ndarray]:
    """Each shape in its own bounding box, on a grid of `count` x `count` cell centres in [-1, 1]."""
    axis = (np.arange(count) + 0.5) / count * 2 - 1
    x, y = np.meshgrid(axis, axis)
    radius = np.hypot(x, y)
    return {
        "disc": radius <= 1,
        "ring": (radius <= 1) & (radius >= 0.55),
        "square": np.ones_like(x, dtype=bool),
        "triangle": np.abs(x) <= (y + 1) / 2,
        "cross": (np.abs(x) <= 0.32) | (np.abs(y) <= 0.32),
    }


_IDEALS = _ideal_masks()


def _shape(part: np.ndarray) -> str:
    """The ideal mask that agrees with most cells of the part's bounding box."""
    count = next(iter(_IDEALS.values())).shape[0]
    rows = ((np.arange(count) + 0.5) / count * part.shape[0]).astype(int)
    columns = ((np.arange(count) + 0.5) / count * part.shape[1]).astype(int)
    cells = part[np.ix_(rows, columns)]
    return max(_IDEALS, key=lambda name: float((cells == _IDEALS[name]).mean()))


__all__ = ["NOTHING", "RADII", "Reading", "read"]
