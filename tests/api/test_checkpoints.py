"""Names of checkpoints: which is the newest that is whole, and which are too old to keep."""

from __future__ import annotations

from frazil_jobs.api.checkpoints import Checkpoint, committed, newest, of_key, outdated


def keys(step: int, attempt: int, *, whole: bool = True) -> list[str]:
    checkpoint = Checkpoint(step, attempt)
    return [f"{checkpoint.folder}/__0_0.distcp", *([checkpoint.marker] if whole else [])]


def test_a_folder_without_its_marker_counts_for_nothing():
    listed = [*keys(10, 0), *keys(20, 0, whole=False)]
    assert newest(listed) == Checkpoint(10, 0)
    assert newest([]) is None


def test_more_steps_come_before_a_later_attempt():
    assert newest([*keys(30, 0), *keys(20, 1)]) == Checkpoint(30, 0)
    assert newest([*keys(30, 0), *keys(30, 1)]) == Checkpoint(30, 1)
    assert newest([*keys(100_000_000, 0), *keys(99_999_999, 0)]) == Checkpoint(100_000_000, 0)


def test_a_key_of_something_else_belongs_to_no_checkpoint():
    for key in ("model/config.json", "checkpoints/other/COMMITTED", "checkpoints/step-1-a0/COMMITTED"):
        assert of_key(key) is None


def test_only_the_newest_are_kept_and_markers_go_first():
    listed = [key for step in (10, 20, 30, 40) for key in keys(step, 0)]
    listed += keys(15, 1, whole=False)
    old = outdated(listed, 2)
    assert {of_key(key)[0].step for key in old} == {10, 15, 20}
    markers = [number for number, key in enumerate(old) if key.endswith("COMMITTED")]
    assert markers == list(range(len(markers)))
    assert committed([key for key in listed if key not in old]) == [Checkpoint(30, 0), Checkpoint(40, 0)]


def test_what_is_being_written_now_is_never_too_old():
    listed = [*keys(10, 0), *keys(20, 0, whole=False)]
    assert outdated(listed, 1) == []
