"""A merge patch brings one document to another, and nothing more."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from frazil_operator.kube.merging import merge_patch

LEAVES = st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.lists(st.integers(0, 3), max_size=2)
NESTED = st.recursive(LEAVES, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6)
DOCUMENTS = st.dictionaries(st.sampled_from("abcd"), NESTED, max_size=4)


def merged(document: Any, patch: Any) -> Any:
    """RFC 7396, as it's written there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@given(DOCUMENTS, DOCUMENTS)
def test_the_patch_of_two_documents_applied_to_the_first_is_the_second(before, after):
    assert merged(before, merge_patch(before, after)) == after


@given(DOCUMENTS)
def test_there_is_nothing_to_patch_between_a_document_and_itself(document):
    assert merge_patch(document, document) == {}
