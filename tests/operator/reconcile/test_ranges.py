"""Sets of indices in text, against Python's own sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frazil_operator.reconcile import ranges

SETS = st.sets(st.integers(0, 60))


@given(SETS, SETS, st.integers(0, 80))
def test_texts_say_what_sets_say(one, other, total):
    first, second = ranges.add("", one), ranges.add("", other)
    both = ranges.union(first, second)
    assert ranges.count(first) == len(one)
    assert ranges.last(both) == max(one | other, default=-1)
    assert list(ranges.gaps(both, total)) == [index for index in range(total) if index not in one | other]
    assert ranges.add(first, other) == ranges.add("", one | other)
    assert all(ranges.contains(both, index) == (index in one | other) for index in range(80))
