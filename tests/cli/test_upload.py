"""Files into a store: what is there with the same bytes is left alone, and nothing lands where jobs store."""

from __future__ import annotations

import pytest

from frazil_cli.upload import files_of, push_all, target
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.stores import StoreConfig, open_store


@pytest.fixture
def store(tmp_path):
    return open_store(StoreConfig(uri=(tmp_path / "store").as_uri()))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    for name, text in {"a.json": "{}", "sub/b.bin": "bytes", ".git/config": "no", "sub/.cache": "no"}.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


def pushed(store, folder):
    return {done.key: done.pushed for done in push_all(store, "team/models/m", files_of(folder), threads=4)}


def test_what_is_hidden_stays_and_what_is_there_is_left_alone(store, folder):
    assert pushed(store, folder) == {"team/models/m/a.json": True, "team/models/m/sub/b.bin": True}
    assert not any(pushed(store, folder).values())
    (folder / "a.json").write_text("[]")
    assert pushed(store, folder) == {"team/models/m/a.json": True, "team/models/m/sub/b.bin": False}
    assert store.get_bytes("team/models/m/a.json") == b"[]"


def test_a_file_has_no_more_to_its_name(store, folder):
    (done,) = push_all(store, "team/prompts/a.json", files_of(folder / "a.json"), threads=1)
    assert (done.key, done.size) == ("team/prompts/a.json", 2)


def test_a_folder_of_nothing_is_said_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no file"):
        files_of(tmp_path / "empty")


@pytest.mark.parametrize(
    ("asked", "found"), [(None, "models/m"), ("models/other/", "models/other"), ("/data/x", "data/x"), ("flat", "flat")]
)
def test_names(asked, found):
    assert target(asked, "models/m") == found


@pytest.mark.parametrize("asked", ["../other", "a//b", "..", "ads-0a1b2c3d", "ads-0a1b2c3d/images/x.png", "a\\b"])
def test_names_that_climb_or_are_a_jobs_results_are_refused(asked):
    with pytest.raises(BadConfiguration, match="models/shapes"):
        target(asked, "models/m")
