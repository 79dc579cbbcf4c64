"""The gallery: one self-contained page (or several) with every picture's thumbnail, prompt, seed and settings.

It asks nothing of any server: thumbnails are embedded, full pictures are relative links. What people typed is data: the
template escapes all of it, and the page's content security policy allows no script but its own, by hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from frazil_jobs.outputs.manifest import Output
from frazil_jobs.stores import ObjectStore

GALLERY_KEY: Final = "index.html"
A_PAGE: Final = 200
THUMBNAIL_BYTES: Final = 256 << 10
"""A larger thumbnail isn't embedded."""
THREADS: Final = 16

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader("frazil_jobs.outputs", "pages"),
    autoescape=select_autoescape(default_for_string=True, default=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What stands at the top of each page."""

    name: str
    model: str
    mode: str
    changes: str
    total: int
    stored: int
    settings: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One output on a page."""

    name: str
    """What a link to it is called by who can't see it."""
    prompt: str
    negative_prompt: str | None
    caption: str
    link: str
    thumbnail: str | None
    """A data URI."""
    kind: str
    """image, video or audio."""


def page_key(page: int) -> str:
    """The key of a page, from 1: index.html, index-2.html, …"""
    return GALLERY_KEY if page == 1 else f"index-{page}.html"


def pages_of(outputs: int) -> int:
    """How many pages `outputs` make; one even for none."""
    return max(1, -(-outputs // A_PAGE))


class GalleryWriter:
    """Collects outputs and writes a page whenever one is full."""

    def __init__(self, store: ObjectStore, prefix: str, heading: Heading) -> None:
        self._store = store
        self._prefix = prefix
        self._heading = heading
        self._pages = pages_of(heading.stored)
        self._page = 0
        self._waiting: list[Output] = []

    def add(self, output: Output) -> None:
        """The next output."""
        self._waiting.append(output)
        if len(self._waiting) == A_PAGE:
            self._write()

    def close(self) -> str:
        """Write what is left. Returns the key of the first page."""
        if self._waiting or self._page == 0:
            self._write()
        return GALLERY_KEY

    def _write(self) -> None:
        self._page += 1
        with ThreadPoolExecutor(THREADS, thread_name_prefix="gallery") as pool:
            tiles = list(pool.map(self._tile, self._waiting))
        first = (self._page - 1) * A_PAGE + 1
        text = render(self._heading, tiles, page=self._page, pages=self._pages, first=first)
        key = f"{self._prefix}/{page_key(self._page)}"
        self._store.put_bytes(key, text.encode(), content_type="text/html; charset=utf-8")
        self._waiting = []

    def _tile(self, output: Output) -> Tile:
        facts = [f"seed {output.seed}", f"prompt {output.prompt_index}, picture {output.image_index}"]
        if output.id is not None:
            facts.append(f"id {output.id}")
        if "width" in output.facts and "height" in output.facts:
            facts.append(f"{output.facts['width']} × {output.facts['height']}")
        return Tile(
            name=f"prompt {output.prompt_index}, picture {output.image_index}, in full size",
            prompt=output.prompt,
            negative_prompt=output.negative_prompt,
            caption=" · ".join(facts),
            link=quote(output.key),
            thumbnail=self._embedded(output.thumbnail),
            kind=output.content_type.partition("/")[0],
        )

    def _embedded(self, key: str | None) -> str | None:
        if key is None:
            return None
        try:
            data = self._store.get_bytes(f"{self._prefix}/{key}", limit=THUMBNAIL_BYTES)
        except (FileNotFoundError, ValueError):
            return None
        return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def render(heading: Heading, tiles: Sequence[Tile], *, page: int, pages: int, first: int) -> str:
    """One page as HTML."""
    script, _, _ = _ENVIRONMENT.loader.get_source(_ENVIRONMENT, "gallery.js")  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values: dict[str, Any] = {
        "heading": heading,
        "tiles": tiles,
        "page": page,
        "pages": [(number, page_key(number)) for number in range(1, pages + 1)],
        "first": first,
        "script": Markup(script),  # noqa: S704  the project's own file
        "script_hash": f"sha256-{digest}",
    }
    return _ENVIRONMENT.get_template("gallery.html").render(values)
