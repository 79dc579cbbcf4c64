"""`frazil push`: into the namespace's part of the store, by its right to write."""

import json

import pytest

from frazil_jobs.stores import open_store


@pytest.fixture
def person(person):
    """With a folder to push."""
    (person.folder / "shapes" / "vae").mkdir(parents=True)
    (person.folder / "shapes" / "model_index.json").write_text("{}")
    (person.folder / "shapes" / "vae" / "weights.bin").write_bytes(b"12345")
    return person


def stored(plane, namespace):
    store = open_store(plane.store.config(plane.store.bucket("frazil"), "results"))
    return {info.key.removeprefix(f"{namespace}/"): store.get_bytes(info.key) for info in store.list(f"{namespace}/")}


@pytest.mark.parametrize("public", [False, True])
def test_a_folder_is_put_where_jobs_of_the_namespace_read(plane, namespace, person, public):
    plane.tenant(namespace, public=plane.store.endpoint if public else "")
    ended = person("push", "shapes", "-n", namespace, "--json")
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["uri"] == f"s3://frazil/results/{namespace}/models/shapes"
    assert (said["files"], said["pushed"], said["bytes"]) == (2, 2, 7)
    assert stored(plane, namespace) == {
        "models/shapes/model_index.json": b"{}",
        "models/shapes/vae/weights.bin": b"12345",
    }
    again = json.loads(person("push", "shapes", "-n", namespace, "--json").stdout)
    assert (again["pushed"], again["alreadyThere"]) == (0, 2)


def test_a_file_is_prompts_unless_it_is_named_otherwise(plane, namespace, person):
    plane.tenant(namespace)
    (person.folder / "words.jsonl").write_text('{"prompt": "x"}')
    ended = person("push", "words.jsonl", "-n", namespace, "--quiet")
    assert ended.stdout.strip() == f"s3://frazil/results/{namespace}/prompts/words.jsonl"
    ended = person("push", "words.jsonl", "data/all.jsonl", "-n", namespace)
    assert f"s3://frazil/results/{namespace}/data/all.jsonl" in ended.stdout
    assert sorted(stored(plane, namespace)) == ["data/all.jsonl", "prompts/words.jsonl"]


def test_a_namespace_that_is_no_tenant_is_told_so(plane, namespace, person):
    ended = person("push", "shapes", "-n", namespace)
    assert ended.returncode == 78
    assert "has no Secret frazil-default-write" in ended.stderr
    assert "`tenants`" in ended.stderr


def test_a_person_without_the_right_to_the_secret_is_told_which(plane, namespace, person):
    plane.tenant(namespace)
    person.env["KUBECONFIG"] = str(plane.person(namespace))
    ended = person("push", "shapes", "-n", namespace)
    assert ended.returncode == 78
    assert "the right to get the Secret frazil-default-write" in ended.stderr
