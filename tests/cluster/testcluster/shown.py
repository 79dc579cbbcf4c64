"""A plugin of pytest: the report of a test that fails shows what the cluster's processes wrote since the test began."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final

import pytest

from testcluster.cluster import default_state
from testcluster.processes import Processes

_LINES: Final = 20
_SIZES: Final = pytest.StashKey[Mapping[str, int]]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note how much there is before the test."""
    item.stash[_SIZES] = Processes(default_state()).log_sizes()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of what came since."""
    report = yield
    if report.failed:
        ends = Processes(default_state()).log_ends(lines=_LINES, since=item.stash.get(_SIZES, None))
        report.sections += [(f"{call.when}: the last lines of {name}", end) for name, end in ends.items()]
    return report
