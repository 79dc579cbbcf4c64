"""URIs of inputs: one reader, and nothing that it lets climb out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs.locations import Bucket, Claim, Hub, Local, clean_path, parse, resolve_claim

BASE = Path("/jobs")


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("hf://stabilityai/sdxl-turbo", Hub("stabilityai/sdxl-turbo")),
        ("s3://models/sdxl/base/", Bucket("models", "sdxl/base")),
        ("file:///models/sdxl", Local(Path("/models/sdxl"))),
        ("file://localhost/models/a%20b#c", Local(Path("/models/a b#c"))),
        ("pvc://models/sdxl", Claim("models", "sdxl")),
        ("pvc://models", Claim("models", ".")),
        ("shapes/model", Local(Path("/jobs/shapes/model"))),
        ("/models/sdxl", Local(Path("/models/sdxl"))),
    ],
)
def test_every_scheme_is_read(uri, location):
    assert parse(uri, base_dir=BASE, field="f") == location


@pytest.mark.parametrize(
    "uri",
    [
        "", "a\nb", "http://host/x", "hf://one", "hf://a/b/c", "hf://../b", "hf://a/..", "s3://", "s3://bucket",
        "s3://bucket/", "s3://Bucket/x", "s3://bucket/../x", "s3://bucket/a/../../x", "file://host/x", "file://x",
        "pvc://claim/../../etc", "pvc:///x", "file:///a%00b",
    ],
)  # fmt: skip
def test_a_uri_that_names_nothing_is_refused_by_the_name_of_its_field(uri):
    with pytest.raises(BadConfiguration) as caught:
        parse(uri, base_dir=BASE, field="spec.model.uri")
    assert caught.value.field == "spec.model.uri"


@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "a", "", "/", "\\", "b\0"])).map("/".join))
def test_a_clean_path_never_leaves_the_folder_it_is_joined_to(text):
    clean = clean_path(text)
    assert clean is None or (Path("/root") / clean).resolve().is_relative_to("/root")


def test_a_claim_is_below_the_root_where_claims_are_mounted_and_nowhere_without_a_cluster():
    claim = Claim("models", "sdxl")
    assert resolve_claim(claim, root=Path("/claims"), field="f") == Local(Path("/claims/models/sdxl"))
    with pytest.raises(BadConfiguration, match="volume of a cluster"):
        resolve_claim(claim, root=None, field="f")
