"""The gallery: what people typed stays text, and the page needs nobody."""

from __future__ import annotations

import base64
import hashlib
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from frazil_jobs.outputs import gallery
from frazil_jobs.outputs.gallery import GalleryWriter, Heading, page_key, pages_of
from frazil_jobs.outputs.manifest import Output
from frazil_jobs.stores import ObjectStore

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x=\'',
    "</figcaption></main><iframe src='https://example.com'>",
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "<!-- <base href='https://example.com'> -->",
    "line\u2028separator\u2029 é 雪 \u202e",
    "&lt;b&gt; & <b>",
]


class Page(HTMLParser):
    """Tags, attributes and the text of prompts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "p":
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        if self._inside == "p":
            self.texts[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def output(index: int, prompt: str, *, kind: str = "image/png", key: str | None = None) -> Output:
    return Output(
        key=key or f"images/{index:06d}-00.png",
        prompt_index=index,
        image_index=0,
        prompt=prompt,
        negative_prompt=prompt,
        seed=index,
        id=prompt[:20],
        thumbnail=f"thumbnails/{index:06d}-00.webp",
        sha256="0" * 64,
        size=1,
        content_type=kind,
        facts={"width": "8", "height": "8"},
    )


def heading(count: int, text: str = "job") -> Heading:
    return Heading(
        name=text,
        model=text,
        mode="Exact",
        changes=text,
        total=count,
        stored=count,
        settings={text: text},
        facts={text: text},
    )


def written(store: ObjectStore, outputs: list[Output], text: str = "job") -> Page:
    for one in outputs:
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), (one.prompt_index * 9 % 255, 90, 160)).save(picture, "WEBP")
        store.put_bytes(f"p/{one.thumbnail}", picture.getvalue(), content_type="image/webp")
    writer = GalleryWriter(store, "p", heading(len(outputs), text))
    for one in outputs:
        writer.add(one)
    assert writer.close() == "index.html"
    return Page(store.get_bytes("p/index.html").decode())


@pytest.mark.parametrize("hostile", HOSTILE, ids=repr)
def test_what_people_typed_stays_text(folder_store: ObjectStore, hostile: str) -> None:
    page = written(folder_store, [output(0, hostile)], text=hostile)
    plain = written(folder_store, [output(0, "plain")])
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags], "no element comes from a text"
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert hostile in page.texts
    assert len(page.scripts) == 1


def test_the_page_runs_its_own_script_only_and_asks_nobody(folder_store: ObjectStore) -> None:
    page = written(folder_store, [output(index, f"prompt {index}") for index in range(3)])
    policy = next(str(meta["content"]) for meta in page.all("meta") if "http-equiv" in meta)
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for _, attributes in page.tags:
        for name in ("src", "href", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/webp;base64,", "images/", "index"))


def test_every_output_has_its_thumbnail_link_prompt_and_seed(folder_store: ObjectStore) -> None:
    page = written(folder_store, [output(index, f"prompt {index}") for index in range(5)])
    images = page.all("img")
    assert len(images) == 5
    raw = base64.b64decode(str(images[0]["src"]).partition(",")[2])
    assert Image.open(io.BytesIO(raw)).size == (8, 8)
    assert [link["href"] for link in page.all("a")] == [f"images/{index:06d}-00.png" for index in range(5)]
    assert {f"prompt {index}" for index in range(5)} <= set(page.texts)


def test_video_and_sound_can_be_played_and_a_lost_thumbnail_is_no_error(folder_store: ObjectStore) -> None:
    clips = [
        output(0, "clip", kind="video/mp4", key="videos/a.mp4"),
        output(1, "tone", kind="audio/wav", key="sounds/b.wav"),
    ]
    writer = GalleryWriter(folder_store, "p", heading(2))
    for clip in clips:
        writer.add(clip)
    writer.close()
    page = Page(folder_store.get_bytes("p/index.html").decode())
    assert [video["src"] for video in page.all("video")] == ["videos/a.mp4"]
    assert [audio["src"] for audio in page.all("audio")] == ["sounds/b.wav"]
    assert page.all("img") == []


def test_many_outputs_make_pages_that_link_to_each_other(
    folder_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gallery, "A_PAGE", 4)
    written(folder_store, [output(index, f"prompt {index}") for index in range(9)])
    assert pages_of(9) == 3
    pages = [Page(folder_store.get_bytes(f"p/{page_key(number)}").decode()) for number in (1, 2, 3)]
    assert [len(page.all("figure")) for page in pages] == [4, 4, 1]
    links = [link["href"] for link in pages[1].all("a") if str(link["href"]).startswith("index")]
    assert links == ["index.html", "index-2.html", "index-3.html"]
    assert folder_store.stat("p/index-4.html") is None


def test_a_job_without_outputs_has_a_page_that_says_so(folder_store: ObjectStore) -> None:
    assert "Nothing is stored." in written(folder_store, []).texts
