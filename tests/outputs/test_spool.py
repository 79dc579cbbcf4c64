"""The spool: whole entries or none, ids that name nothing else, a bound that is kept."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frazil_jobs.base.exits import TryAgain
from frazil_jobs.outputs.scanner import AGAIN_SECONDS, LONGEST_PAUSE_SECONDS, WINDOW, Request, due
from frazil_jobs.outputs.spool import Acknowledgement, Refusal, Spool, id_of, is_id


def add(spool: Spool, key: str = "images/000000-00.png", data: bytes = b"bytes") -> str:
    return spool.add(key, data, content_type="image/png", metadata={"shard": "0"}).id


def acknowledge(spool: Spool, entry_id: str) -> None:
    entry = spool.entry(entry_id)
    assert entry is not None
    spool.acknowledge(Acknowledgement(id=entry.id, key=entry.key, sha256=entry.sha256, size=entry.size))


def test_an_entry_waits_until_it_is_acknowledged_and_its_payload_is_freed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    entry_id = add(spool)
    assert spool.pending() == [entry_id]
    assert not spool.drained()
    acknowledge(spool, entry_id)
    assert spool.pending() == []
    assert spool.drained()
    assert spool.used_bytes() == 0
    assert [one.key for one in spool.acknowledged()] == ["images/000000-00.png"]


def test_a_payload_without_its_sidecar_is_not_an_entry(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "payload" / "x").write_bytes(b"half")
    (tmp_path / "entry" / ".x.json.tmp").write_text("{")
    assert spool.pending() == []


def test_a_sidecar_that_makes_no_sense_is_pending_but_no_entry(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    (tmp_path / "entry" / "x.json").write_text('{"id": "y"}')
    assert spool.pending() == ["x"]
    assert spool.entry("x") is None


def test_an_entry_made_again_is_pending_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    acknowledge(spool, add(spool))
    entry_id = add(spool, data=b"other")
    assert spool.pending() == [entry_id]
    spool.refuse(Refusal(id=entry_id, reason="no"))
    assert spool.drained()
    assert spool.pending() == []
    assert add(spool) == entry_id
    assert spool.pending() == [entry_id]


@given(st.text(min_size=1, max_size=200))
def test_every_key_has_an_id_that_names_nothing_outside(key: str) -> None:
    assert is_id(id_of(key))
    assert "/" not in id_of(key)
    assert id_of(key) != id_of(key + "x")


@pytest.mark.parametrize("text", ["", "..", ".", "../x", "a/b", "/etc/passwd", "A", "a b", "-a", "x" * 121, "a\0"])
def test_what_could_name_something_else_is_no_id(tmp_path: Path, text: str) -> None:
    assert not is_id(text)
    with pytest.raises(ValueError):
        Spool(tmp_path).open_payload(text)


def test_a_link_in_the_place_of_a_payload_is_not_followed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    (tmp_path / "secret").write_text("secret")
    entry_id = add(spool)
    (spool.root / "payload" / entry_id).unlink()
    (spool.root / "payload" / entry_id).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        spool.open_payload(entry_id)


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x", "a\\b", "x\n"])
def test_a_key_that_could_leave_the_prefix_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError):
        add(Spool(tmp_path), key)


def test_a_full_spool_waits_for_room_and_goes_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=10)
    first = add(spool, "a", b"x" * 8)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (add(spool, "b", b"y" * 8), done.set()))
    thread.start()
    assert not done.wait(0.5)
    acknowledge(spool, first)
    assert done.wait(30)
    thread.join()


def test_one_output_larger_than_the_limit_still_fits_an_empty_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=10)
    assert spool.entry(add(spool, "a", b"x" * 100)) is not None


def test_a_full_spool_gives_up_when_told_to_or_in_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=10)
    add(spool, "a", b"x" * 8)
    with pytest.raises(TryAgain, match="stopped"):
        spool.add("b", b"y" * 8, content_type="x/y", stop=lambda: True)
    with pytest.raises(TryAgain, match="stayed full"):
        spool.add("b", b"y" * 8, content_type="x/y", timeout=0.2)
    assert len(spool.pending()) == 1


def test_a_file_that_lies_there_already_is_taken_at_once_and_asked_for_before(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=10)
    assert spool.has_room(100), "an empty one takes anything"
    add(spool, "a", b"x" * 8)
    assert (spool.has_room(2), spool.has_room(3)) == (True, False)
    (tmp_path / "file").write_bytes(b"y" * 8)
    entry = spool.take("b", tmp_path / "file", content_type="x/y")
    assert (tmp_path / "payload" / entry.id).read_bytes() == b"y" * 8
    assert not (tmp_path / "file").exists()


def test_pending_is_oldest_first(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    ids = [add(spool, key) for key in ("c", "a", "b")]
    for age, entry_id in enumerate(ids):
        os.utime(tmp_path / "entry" / f"{entry_id}.json", ns=(age, age))
    assert spool.pending() == ids


def test_the_scanner_asks_for_what_is_new_and_again_after_a_growing_pause() -> None:
    idle = lambda _: False  # noqa: E731
    assert due(["a", "b"], {}, now=0, busy=idle) == ["a", "b"]
    assert due(["a"], {"a": Request(0, 1)}, now=AGAIN_SECONDS - 0.1, busy=idle) == []
    assert due(["a"], {"a": Request(0, 1)}, now=AGAIN_SECONDS, busy=idle) == ["a"]
    assert due(["a"], {"a": Request(0, 2)}, now=AGAIN_SECONDS, busy=idle) == []
    assert due(["a"], {"a": Request(0, 50)}, now=LONGEST_PAUSE_SECONDS, busy=idle) == ["a"]
    assert due(["a", "b"], {}, now=0, busy=lambda entry: entry == "a") == ["b"]


def test_the_scanner_asks_for_no_more_than_a_window() -> None:
    pending = [f"e{index}" for index in range(WINDOW + 5)]
    assert due(pending, {}, now=0, busy=lambda _: False) == pending[:WINDOW]
