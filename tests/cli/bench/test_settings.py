"""Settings of the benches: what may be written, what is refused, and that the built-in ones are settings of the job file."""

from __future__ import annotations

import pytest

from frazil_cli.bench_modes.settings import FAR, FRONTIER, NEAR, SPEED, parse, parsed
from frazil_jobs.base.exits import BadConfiguration


def test_a_setting_is_the_switching_of_a_job_file() -> None:
    setting = parse("Guided:budget=35,predictorOrder=2,refreshEvery=5,conditioning=1")
    switching = setting.parallelism.switching
    assert (setting.mode, setting.ranks) == ("Guided", 1)
    assert (switching.budget, switching.predictor_order, switching.refresh_every) == ("35", 2, 5)
    assert setting.detail == "budget=35,predictorOrder=2,refreshEvery=5,conditioning=1"
    assert parse("Exact").detail == "defaults"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Fast", "no mode"),
        ("Guided:budget", "no value"),
        ("Guided:bugdet=4", "bugdet"),
        ("Hybrid:windowPercent=90", "windowPercent"),
        ("Hybrid:conditioning=1", "conditioning"),
    ],
)
def test_a_setting_that_no_job_could_have_is_refused_by_name(text: str, names: str) -> None:
    with pytest.raises(BadConfiguration, match=names):
        parse(text)


def test_exact_is_always_measured_first_and_nothing_twice() -> None:
    assert [setting.text for setting in parsed(["Hybrid", "Exact", "Hybrid"])] == ["Exact", "Hybrid"]
    assert [setting.text for setting in parsed(["Guided"])] == ["Exact", "Guided"]


def test_the_built_in_settings_can_be_run() -> None:
    for text in (*SPEED, *FRONTIER):
        assert parse(text).text == text
    assert {parse(text).mode for text in FRONTIER} == {"Exact", "Hybrid", "Guided"}


def test_the_same_reuse_on_one_rank_stands_in_the_frontier() -> None:
    alone = [text for text in FRONTIER if parse(text).ranks == 1]
    assert alone == [f"{text},conditioning=1" for text in (NEAR, FAR)]
    assert {NEAR, FAR} <= set(FRONTIER)
