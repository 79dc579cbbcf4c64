"""Pictures that rows name: verified, put under their sha256, and never from outside the prompt file's folder."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from frazil_jobs.base.exits import BadInput
from frazil_jobs.inputs import pictures as pictures_module
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.locations import Bucket, Local
from frazil_jobs.inputs.pictures import Pictures, picture_location, verified_format
from frazil_jobs.inputs.rows import PromptRow
from frazil_jobs.inputs.task import picture_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    (folder / "masks").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    Image.new("L", (8, 8), 128).save(folder / "masks" / "mask.webp")
    return folder


@pytest.fixture
def pictures(root: Path, tmp_path: Path) -> Pictures:
    access = Access(cache=tmp_path / "cache")
    return Pictures(access=access, spool=tmp_path / "spool", root=Local(root), prompts_name="prompts.jsonl")


def localized(pictures: Pictures, **images: str) -> PromptRow:
    return pictures.localized(PromptRow(prompt="a", images=images), "line 3")


def test_pictures_lie_in_the_spool_under_their_sha256(pictures, root):
    row = localized(pictures, image="red.png", mask_image="masks/mask.webp")
    digest = hashlib.sha256((root / "red.png").read_bytes()).hexdigest()
    assert row.images["image"] == f"files/{digest}.png"
    assert picture_path(pictures.spool, row.images["image"]).read_bytes() == (root / "red.png").read_bytes()
    assert row.images["mask_image"].endswith(".webp")
    assert sorted(file.name[-4:] for file in (pictures.spool / "input" / "files").iterdir()) == [".png", "webp"]


def test_a_missing_picture_names_row_argument_and_remedy(pictures):
    with pytest.raises(BadInput, match=r"prompts\.jsonl line 3: images\.mask_image: there is no file .*nothing\.png"):
        localized(pictures, image="red.png", mask_image="nothing.png")


@pytest.mark.parametrize(
    "uri",
    [
        "../outside.png",
        "masks/../../outside.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "link.png",
        "folder/outside.png",
        "https://example.com/x.png",
        "hf://a/b",
        "data://x",
    ],
)
def test_no_row_reads_a_file_outside_the_prompt_file_s_folder(pictures, root, uri):
    outside = root.parent / "outside.png"
    Image.new("RGB", (8, 8)).save(outside)
    (root / "link.png").symlink_to(outside)
    (root / "folder").symlink_to(root.parent)
    with pytest.raises(BadInput):
        localized(pictures, image=uri)
    files = pictures.spool / "input" / "files"
    assert not files.exists() or not list(files.iterdir())


def test_an_absolute_path_inside_the_folder_is_read(pictures, root):
    assert localized(pictures, image=str(root / "red.png")).images["image"].endswith(".png")


@pytest.mark.parametrize(
    "uri", ["/etc/passwd", "file:///etc/passwd", "../x.png", "pvc://claim/x.png", "a/../../x", "a\0b"]
)
def test_a_prompt_file_of_a_store_names_no_path_at_all(uri):
    with pytest.raises(BadInput):
        picture_location(uri, root=Bucket("data", "coco"), claims_root=Path("/"))


def test_a_relative_name_in_a_prompt_file_of_a_store_is_a_key_beside_it():
    assert picture_location("img/x.png", root=Bucket("data", "coco"), claims_root=None) == Bucket(
        "data", "coco/img/x.png"
    )
    assert picture_location("x.png", root=Bucket("data", ""), claims_root=None) == Bucket("data", "x.png")
    assert picture_location("s3://other/x.png", root=None, claims_root=None) == Bucket("other", "x.png")


def test_prompts_without_a_folder_name_only_buckets():
    with pytest.raises(BadInput, match="have no folder"):
        picture_location("x.png", root=None, claims_root=None)


def test_what_is_no_picture_is_refused(pictures, root):
    (root / "text.png").write_text("not a picture")
    (root / "vector.png").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    whole = (root / "red.png").read_bytes()
    (root / "half.png").write_bytes(whole[: len(whole) // 2])
    for name in ("text.png", "vector.png", "half.png"):
        with pytest.raises(BadInput, match="no picture that can be read"):
            localized(pictures, image=name)


def test_a_picture_of_too_many_pixels_is_refused_undecoded(pictures, root):
    Image.new("1", (9_000, 9_000)).save(root / "bomb.png")  # PIL itself refuses only twice as many
    assert (root / "bomb.png").stat().st_size < 1 << 20
    with pytest.raises(BadInput, match="9000 x 9000 pixels"):
        localized(pictures, image="bomb.png")


def test_a_picture_that_is_too_large_is_refused_unread(pictures, root, monkeypatch):
    monkeypatch.setattr(pictures_module, "MAX_BYTES", 10)
    with pytest.raises(BadInput, match="at most 10"):
        localized(pictures, image="red.png")


def test_a_pipe_or_a_loop_of_links_is_refused_without_waiting(pictures, root):
    os.mkfifo(root / "pipe.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    for name in ("pipe.png", "loop.png", "x" * 300):
        with pytest.raises(BadInput):
            localized(pictures, image=name)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF", b"BM", b"II*\0"])
)
def test_no_bytes_end_in_anything_but_bad_input(tmp_path_factory, data, head):
    path = tmp_path_factory.getbasetemp() / "picture"
    path.write_bytes(head + data)
    with suppress(BadInput):
        verified_format(path, "picture")


@pytest.mark.parametrize(
    "name", ["../task.json", "files/../task.json", "files/a/b", "/etc/passwd", "task.json", "files/.x", ""]
)
def test_the_compute_process_opens_only_pictures_of_its_task(tmp_path, name):
    with pytest.raises(ValueError, match="is not a picture"):
        picture_path(tmp_path, name)
