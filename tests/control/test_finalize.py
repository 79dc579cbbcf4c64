"""Finalizing a job: recounted from the store, the manifest last, as a function and through a real Celery worker."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from servers import RealRedis, RealS3

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import load_job
from frazil_jobs.api.naming import image_key, seed_of
from frazil_jobs.api.parallelism import Parallelism
from frazil_jobs.base import parent
from frazil_jobs.base.exits import TryAgain
from frazil_jobs.control.finalize import Finalized, FinalizeRequest, changes_of, finalize
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.prompts import inspect_prompts
from frazil_jobs.outputs import manifest as manifests
from frazil_jobs.outputs.celery_app import make_app
from frazil_jobs.outputs.distance import Distance
from frazil_jobs.outputs.manifest import read_manifest, read_outputs
from frazil_jobs.stores import ObjectStore, open_store

PREFIX = "default/pictures-abc"
JOB = """
apiVersion: frazil.dev/v1alpha1
kind: GenerationJob
metadata: {name: pictures}
spec:
  model: {uri: hf://org/model}
  prompts: {inline: [one, two, three], perShard: 2}
  imagesPerPrompt: 2
  sampling: {seed: 9, negativePrompt: bad}
"""


class Recording:
    """A store that notes in which order objects are put."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.put: list[str] = []

    def put_bytes(self, key: str, data: bytes, **words: Any) -> Any:
        self.put.append(key.removeprefix(f"{PREFIX}/"))
        return self._store.put_bytes(key, data, **words)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def request_for(text: str = JOB) -> FinalizeRequest:
    job = load_job(text)
    assert isinstance(job, GenerationJob)
    pin = inspect_prompts(job.spec.prompts, base_dir=Path(), access=Access.from_env({}))
    return FinalizeRequest(job=job, uid="abc", prefix=PREFIX, pin=pin, base_dir=Path())


def fill(store: ObjectStore, *, without: Iterable[tuple[int, int]] = ()) -> None:
    for prompt in range(3):
        for image in range(2):
            if (prompt, image) not in without:
                key = f"{PREFIX}/{image_key(prompt, image, 'png')}"
                facts = {"ranks": "2", "device": "cpu"}
                store.put_bytes(key, f"{prompt}{image}".encode(), content_type="image/png", metadata=facts)


def run(store: Any, request: FinalizeRequest) -> Finalized:
    return finalize(request, store, Access.from_env({}))


def test_the_manifest_says_what_is_stored_and_comes_last(folder_store: ObjectStore) -> None:
    fill(folder_store)
    store = Recording(folder_store)
    found = run(store, request_for())
    assert (found.total, found.stored, found.bytes) == (6, 6, 12)
    assert store.put == ["index.html", "manifest.json"]
    manifest = read_manifest(folder_store, PREFIX)
    assert (manifest.total, manifest.stored, manifest.mode, manifest.missing) == (6, 6, "Exact", [])
    rows = list(read_outputs(folder_store, manifest))
    assert [row.key for row in rows] == [image_key(prompt, image, "png") for prompt in range(3) for image in range(2)]
    for row in rows:
        info = folder_store.stat(f"{PREFIX}/{row.key}")
        assert info is not None
        assert (row.sha256, row.size) == (info.sha256, info.size)
        assert row.seed == seed_of(9, row.prompt_index, row.image_index)
        assert (row.prompt, row.negative_prompt) == (["one", "two", "three"][row.prompt_index], "bad")
        assert row.facts["ranks"] == "2"


def test_finalizing_again_leaves_the_same_rows(folder_store: ObjectStore) -> None:
    fill(folder_store)
    run(folder_store, request_for())
    first = list(read_outputs(folder_store, read_manifest(folder_store, PREFIX)))
    page = folder_store.get_bytes(f"{PREFIX}/index.html")
    run(folder_store, request_for())
    assert list(read_outputs(folder_store, read_manifest(folder_store, PREFIX))) == first
    assert folder_store.get_bytes(f"{PREFIX}/index.html") == page


def test_nothing_is_written_while_outputs_are_missing(folder_store: ObjectStore) -> None:
    fill(folder_store, without=[(1, 0), (2, 1)])
    with pytest.raises(TryAgain, match=r"2 of 6 outputs are not stored, among them images/000001-00\.png"):
        run(folder_store, request_for())
    assert folder_store.stat(f"{PREFIX}/manifest.json") is None
    assert folder_store.stat(f"{PREFIX}/index.html") is None


def test_the_success_policy_allows_some_to_be_missing_and_they_are_named(folder_store: ObjectStore) -> None:
    fill(folder_store, without=[(1, 0)])
    found = run(folder_store, request_for(JOB + "  successPolicy: {minStoredPercent: 80}\n"))
    assert found.stored == 5
    assert read_manifest(folder_store, PREFIX).missing == ["images/000001-00.png"]
    with pytest.raises(TryAgain):
        run(folder_store, request_for(JOB + "  successPolicy: {minStoredPercent: 84}\n"))


HYBRID = JOB + "  parallelism: {mode: Hybrid}\n"


def put_facts(store: ObjectStore, facts: dict[tuple[int, int], dict[str, str]]) -> None:
    for (prompt, image), own in facts.items():
        key = f"{PREFIX}/{image_key(prompt, image, 'png')}"
        store.put_bytes(key, b"x", content_type="image/png", metadata={"mode": "Hybrid", **own})


def test_the_measured_distance_of_an_approximate_mode_is_in_manifest_and_gallery(folder_store: ObjectStore) -> None:
    fill(folder_store)
    distances = {(0, 0): {"psnr_to_exact_db": "30.00"}, (2, 1): {"psnr_to_exact_db": "inf"}}
    put_facts(folder_store, distances)
    run(folder_store, request_for(HYBRID))
    manifest = read_manifest(folder_store, PREFIX)
    assert manifest.distance == Distance(compared=2, worst_db="30.00", mean_db="33.01")
    assert manifest.changes.startswith("guidance is off inside the pipelined window")
    page = folder_store.get_bytes(f"{PREFIX}/index.html").decode()
    assert "measured distance to Exact: 30.00 dB PSNR at worst, 33.01 dB on average, of 2 compared outputs" in page


@pytest.mark.parametrize(
    ("degrees", "true", "untrue"),
    [
        ({"pipeline": 1}, "deep features are forecast", "stages"),
        ({"pipeline": 2}, "each branch is evaluated in 2 stages, whose activations are one step old", "forecast"),
        ({"conditioning": 1, "pipeline": 4}, "less the branches' difference, carried from the full steps", "forecast"),
    ],
)
def test_what_guided_changes_is_said_of_the_degrees_that_it_ran_with(
    degrees: dict[str, Any], true: str, untrue: str
) -> None:
    said = changes_of(Parallelism(mode="Guided", **degrees))
    assert true in said
    assert untrue not in said
    assert "guidance is kept" in said


def test_outputs_of_an_approximate_mode_that_are_exact_after_all_say_why(folder_store: ObjectStore) -> None:
    whole = {"mode": "Exact", "all_whole_because": "it draws noise in each step"}
    put_facts(folder_store, {(prompt, image): whole for prompt in range(3) for image in range(2)})
    found = run(folder_store, request_for(HYBRID))
    assert found.note == "every output is exact: it draws noise in each step"
    manifest = read_manifest(folder_store, PREFIX)
    assert manifest.distance is None
    assert manifest.whole_because == "every output is exact: it draws noise in each step"
    page = folder_store.get_bytes(f"{PREFIX}/index.html").decode()
    assert "nothing is changed, for every output is exact: it draws noise in each step" in page
    put_facts(folder_store, {(0, 0): {}})
    run(folder_store, request_for(HYBRID))
    assert (read_manifest(folder_store, PREFIX).whole_because or "").startswith("5 outputs are exact")


def test_without_a_gallery_there_is_none(folder_store: ObjectStore) -> None:
    fill(folder_store)
    assert run(folder_store, request_for(JOB + "  output: {gallery: false}\n")).gallery is None
    assert folder_store.stat(f"{PREFIX}/index.html") is None


def test_many_rows_go_into_parts_with_their_hashes(folder_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder_store)
    run(folder_store, request_for())
    whole = list(read_outputs(folder_store, read_manifest(folder_store, PREFIX)))
    monkeypatch.setattr(manifests, "ROWS_A_PART", 2)
    run(folder_store, request_for())
    manifest = read_manifest(folder_store, PREFIX)
    assert [part.rows for part in manifest.parts] == [2, 2, 2]
    assert manifest.outputs == []
    assert list(read_outputs(folder_store, manifest)) == whole
    folder_store.put_bytes(f"{PREFIX}/{manifest.parts[1].key}", b"{}\n", content_type="application/jsonl")
    with pytest.raises(TryAgain, match="not the part"):
        list(read_outputs(folder_store, manifest))


def test_a_real_worker_finalizes_through_celery(redis_server: RealRedis, s3_server: RealS3, tmp_path: Path) -> None:
    config = s3_server.config(s3_server.bucket("finalize"), tmp_path.name.replace("_", "-"))
    store = open_store(config)
    env = {
        **os.environ,
        **config.to_env(),
        "FRAZIL_REDIS_URL": redis_server.url,
        "FRAZIL_QUEUE": f"control-{tmp_path.name}",
        "FRAZIL_JOB_FOLDER": str(tmp_path),
    }
    with (tmp_path / "log").open("wb") as log:
        worker = parent.start([sys.executable, "-m", "frazil_jobs.control"], env=env, stdout=log, stderr=log)
    try:
        request = request_for()
        document = request.job.model_dump(mode="json", by_alias=True, exclude_none=True)
        arguments = [document, "abc", PREFIX, request.pin.model_dump(mode="json")]
        app = make_app(redis_server.url)

        def ask() -> Any:
            return app.send_task("frazil.finalize", args=arguments, queue=env["FRAZIL_QUEUE"], ignore_result=False).get(
                60
            )

        fill(store, without=[(0, 0)])
        assert ask()["error"]["exitCode"] == 75
        fill(store)
        assert ask()["finalized"]["stored"] == 6
        assert read_manifest(store, PREFIX).stored == 6
    finally:
        worker.kill()
        worker.wait()
        gc.collect()  # a result that is dropped unsubscribes, which needs Redis
