"""The real API server refuses what can't work, with our words."""

from __future__ import annotations

import copy
import json

import pytest
from job_cases import CREATE, MINIMAL, UPDATE, changed

NAMESPACE = "invalid-objects"


@pytest.fixture(scope="module")
def server(cluster, installation):
    """The API server with the chart's CRDs, and one valid object of each kind."""
    cluster.namespace(NAMESPACE)
    for document in MINIMAL.values():
        made = copy.deepcopy(document)
        made["metadata"]["namespace"] = NAMESPACE
        made["spec"]["suspend"] = True
        cluster.apply(made)
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def refused(cluster, document) -> str:
    document = copy.deepcopy(document)
    document["metadata"]["namespace"] = NAMESPACE
    ended = cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(document), check=False)
    assert ended.returncode, "it was accepted"
    return ended.stderr


def words_of(message: str) -> str:
    """Of "field: message", what the API server says."""
    return message.partition(": ")[2] or message


@pytest.mark.parametrize("case", CREATE, ids=lambda case: f"{case.kind}-{case.message[:40]}")
def test_an_object_that_breaks_a_rule_is_refused_with_our_message(server, case):
    document = changed(MINIMAL[case.kind], case.changes)
    document["metadata"]["name"] = case.changes.get("metadata.name", "other")
    assert words_of(case.message) in refused(server, document)


@pytest.mark.parametrize("case", UPDATE, ids=lambda case: f"{case.kind}-{case.message[:40]}")
def test_a_change_that_breaks_a_rule_is_refused_with_our_message(server, case):
    patch: dict = {}
    for path, value in case.changes.items():
        *above, last = path.split(".")
        place = patch
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    if "uri" in str(case.changes.get("spec.prompts", "")):
        patch["spec"]["prompts"]["inline"] = None
    ended = server.kubectl(
        "patch",
        case.kind.lower(),
        MINIMAL[case.kind]["metadata"]["name"],
        "-n",
        NAMESPACE,
        "--type=merge",
        "--dry-run=server",
        "-p",
        json.dumps(patch),
        check=False,
    )
    assert ended.returncode, "it was accepted"
    assert words_of(case.message) in ended.stderr


def test_the_table_is_long_enough():
    assert len(CREATE) + len(UPDATE) >= 40
