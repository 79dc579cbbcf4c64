"""A training's results are recounted from the store: what its manifest names is there, or the job has lost something."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.control.finalize_training import finalize_training
from frazil_jobs.control.tasks import finalize_job
from frazil_jobs.outputs.manifest import TooLittleStored
from frazil_jobs.outputs.training_manifest import StoredFile, TrainingManifest
from frazil_jobs.stores import ObjectStore, StoreConfig, open_store

UID, PREFIX, STEPS = "0a1b2c3d", "team/dit-0a1b2c3d", 100
FILES = {"model/model.safetensors": b"weights", "model/config.json": b"{}", "index.html": b"<html>"}
JOB = {
    "apiVersion": "frazil.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "dit", "namespace": "team"},
    "spec": {
        "task": "CausalLM",
        "model": {"uri": "hf://owner/model"},
        "dataset": {"uri": "s3://bucket/data"},
        "steps": STEPS,
        "workers": {"gpusPerNode": 1},
    },
}


def fill(store: ObjectStore, *, files: dict[str, bytes] = FILES, uid: str = UID, steps: int = STEPS) -> None:
    """What a leader leaves in the store."""
    named = []
    for key, data in files.items():
        sha256 = hashlib.sha256(data).hexdigest()
        named.append(StoredFile(key=key, sha256=sha256, size=len(data), content_type="text/plain"))
        if ".." not in key:
            store.put_bytes(f"{PREFIX}/{key}", data, content_type="text/plain")
    manifest = TrainingManifest.of(
        TrainingJob.model_validate(JOB),
        uid,
        PREFIX,
        steps=steps,
        outputs=named,
        history={"points": [], "measures": []},
        checkpoint=None,
    )
    store.put_bytes(f"{PREFIX}/manifest.json", manifest.text().encode(), content_type="application/json")


def recounted(store: ObjectStore):
    return finalize_training(TrainingJob.model_validate(JOB), UID, PREFIX, store)


@pytest.mark.parametrize(("files", "gallery"), [(FILES, True), ({"model/config.json": b"{}"}, False)])
def test_all_that_the_manifest_names_is_counted(folder_store: ObjectStore, files, gallery) -> None:
    fill(folder_store, files=files)
    found = recounted(folder_store)
    assert (found.total, found.stored, found.bytes) == (len(files), len(files), sum(map(len, files.values())))
    assert found.manifest == f"{PREFIX}/manifest.json"
    assert found.gallery == (f"{PREFIX}/index.html" if gallery else None)


def changed(store: ObjectStore) -> None:
    fill(store)
    store.put_bytes(f"{PREFIX}/model/config.json", b"[]", content_type="text/plain")


def removed(store: ObjectStore) -> None:
    fill(store)
    store.delete([f"{PREFIX}/model/config.json"])


def without_manifest(store: ObjectStore) -> None:
    fill(store)
    store.delete([f"{PREFIX}/manifest.json"])


def nonsense(store: ObjectStore) -> None:
    store.put_bytes(f"{PREFIX}/manifest.json", b'{"outputs": 7', content_type="application/json")


LOST = {
    "a file is another": (changed, "model/config.json is not stored", 2),
    "a file is gone": (removed, "model/config.json is not stored", 2),
    "the manifest is gone": (without_manifest, "the manifest is not stored", 0),
    "the manifest is none": (nonsense, "makes no sense", 0),
    "the manifest names no file": (lambda store: fill(store, files={}), "names no file", 0),
    "the manifest is of a shorter run": (lambda store: fill(store, steps=STEPS - 1), "of 99 steps", 0),
    "the manifest is of another job": (lambda store: fill(store, uid="another"), "the manifest is of", 0),
    "the manifest leads elsewhere": (lambda store: fill(store, files={"../x": b""}), "is not a key", 0),
}


@pytest.mark.parametrize(("leave", "said", "stored"), LOST.values(), ids=LOST)
def test_what_is_not_in_the_store_as_it_should_be_is_told(folder_store: ObjectStore, leave, said, stored) -> None:
    leave(folder_store)
    with pytest.raises(TooLittleStored, match=said) as caught:
        recounted(folder_store)
    assert caught.value.stored == stored < caught.value.total


def test_the_task_finalizes_a_training_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = StoreConfig(uri=f"file://{tmp_path}/store")
    for name, value in config.to_env().items():
        monkeypatch.setitem(os.environ, name, value)
    fill(open_store(config))
    asked = {"job": JOB, "uid": UID, "prefix": PREFIX}
    assert finalize_job(**asked)["finalized"]["stored"] == 3
    removed(open_store(config))
    error = finalize_job(**asked)["error"]
    assert (error["stored"], error["total"]) == (2, 3)
