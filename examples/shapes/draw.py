"""Draws the pictures that the small model learns: one plain shape on a light ground, said in one sentence.

Everything follows from a seed. `HELD_OUT` names the combinations that training never sees (one in ten), so that the
evaluation can tell composition from memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image, ImageDraw

PIXELS = 64
_OVERSAMPLING = 4

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "orange": (255, 140, 26),
    "yellow": (240, 214, 40),
    "green": (44, 160, 60),
    "cyan": (40, 200, 214),
    "blue": (40, 70, 214),
    "purple": (140, 60, 190),
    "black": (30, 30, 34),
}
SHAPES = ("disc", "ring", "square", "triangle", "cross")
RADII = {"small": 8.0, "large": 14.0}
"""Half the extent of a shape, in pixels."""
PLACES: dict[str, tuple[float, float]] = {
    "in the centre": (32.0, 32.0),
    "on the left": (16.5, 32.0),
    "on the right": (47.5, 32.0),
    "at the top": (32.0, 16.5),
    "at the bottom": (32.0, 47.5),
}
"""Where the middle of the shape is (x, y), in pixels from the upper left corner."""
JITTER = 1.5
"""How far, in pixels, the middle may lie from its place, and how much half the extent may differ (a third of it)."""


@dataclass(frozen=True, order=True)
class Scene:
    """What one picture shows."""

    size: str
    colour: str
    shape: str
    place: str

    @property
    def prompt(self) -> str:
        """The sentence that describes it."""
        return f"a {self.size} {self.colour} {self.shape} {self.place}"


ALL = tuple(Scene(*names) for names in product(RADII, COLOURS, SHAPES, PLACES))


def _rank(scene: Scene) -> str:
    return hashlib.sha256(scene.prompt.encode()).hexdigest()


HELD_OUT = frozenset(sorted(ALL, key=_rank)[: len(ALL) // 10])
"""One combination in ten, chosen by a hash: never in the training."""
TRAINING = tuple(scene for scene in ALL if scene not in HELD_OUT)


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A picture of `scene`: uint8, (64, 64, 3). Place, size, colour and ground differ a little each time."""
    ground = tuple(int(value) for value in rng.integers(232, 252, size=3))
    colour = tuple(
        int(value) for value in np.clip(np.array(COLOURS[scene.colour]) + rng.integers(-8, 9, size=3), 0, 255)
    )
    scale = _OVERSAMPLING
    image = Image.new("RGB", (PIXELS * scale, PIXELS * scale), ground)
    x, y = (np.array(PLACES[scene.place]) + rng.uniform(-JITTER, JITTER, size=2)) * scale
    radius = (RADII[scene.size] + rng.uniform(-JITTER, JITTER) / 3) * scale
    _paint(ImageDraw.Draw(image), scene.shape, x, y, radius, colour, ground)
    return np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.BOX))


def _paint(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, colour: tuple[int, ...], ground: tuple[int, ...]
) -> None:
    if shape in ("disc", "ring"):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        if shape == "ring":
            hole = 0.55 * r
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=ground)
    elif shape == "square":
        half = 0.9 * r
        pen.rectangle((x - half, y - half, x + half, y + half), fill=colour)
    elif shape == "triangle":
        pen.polygon(((x, y - r), (x + r, y + 0.85 * r), (x - r, y + 0.85 * r)), fill=colour)
    else:
        arm = 0.32 * r
        pen.rectangle((x - r, y - arm, x + r, y + arm), fill=colour)
        pen.rectangle((x - arm, y - r, x + arm, y + r), fill=colour)
