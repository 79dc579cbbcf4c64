"""The fetch process: from its environment to the task in the spool, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_stand_in import HubStandIn
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from servers import wait_for

from frazil_jobs.api import naming
from frazil_jobs.base.exits import BadConfiguration, BadInput, FrazilError, TryAgain
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.fetch import Order, fetch, parse_shards
from frazil_jobs.inputs.progress import FetchProgress
from frazil_jobs.inputs.stored import MAX_LISTINGS, blocks, joined, stored_keys
from frazil_jobs.inputs.task import Task, picture_path
from frazil_jobs.stores import StoreConfig, open_store

PREFIX = "default/demo-12345678"


class Job:
    """A job file beside its prompts, and the environment of one fetch."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.spool = folder, folder / "spool"
        self.document = {
            "apiVersion": "frazil.dev/v1alpha1",
            "kind": "GenerationJob",
            "metadata": {"name": "demo"},
            "spec": {"model": {"uri": str(model)}, "prompts": {"uri": "prompts.jsonl", "perShard": 2}},
        }
        self.rows([{"prompt": f"picture {n}", "seed": n} for n in range(5)])
        self.store = StoreConfig(uri=f"file://{folder}/store")
        self.env = {
            "PATH": os.environ["PATH"],
            "FRAZIL_LOG": "json",
            "FRAZIL_JOB_FILE": str(folder / "job.yaml"),
            "FRAZIL_SPOOL": str(self.spool),
            "FRAZIL_PREFIX": PREFIX,
            "FRAZIL_JOB_UID": "12345678",
            "FRAZIL_MODEL_CACHE": str(folder / "cache"),
            **self.store.to_env(),
        }

    @property
    def spec(self) -> dict:
        return self.document["spec"]

    def rows(self, rows: list[dict]) -> None:
        (self.folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(self) -> None:
        (self.folder / "job.yaml").write_text(yaml.safe_dump(self.document))

    def fetch(self, **env: str) -> subprocess.CompletedProcess[str]:
        self.write()
        return self.run(**env)

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "frazil_jobs.inputs.fetch"],
            env=self.env | env,
            capture_output=True,
            text=True,
            check=False,
        )

    def here(self) -> Task:
        """The same in this process."""
        self.write()
        return fetch(Order.from_env(self.env), Access.from_env(self.env))

    def error(self, done: subprocess.CompletedProcess[str]) -> str:
        lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        (error,) = [line["error"] for line in lines if line["level"] == "error"]
        assert "Traceback" not in done.stderr
        return error


@pytest.fixture
def job(tmp_path: Path, model: Path) -> Job:
    return Job(tmp_path, model)


def test_the_task_holds_model_rows_and_shards_and_no_secret(job, model):
    done = job.fetch(
        FRAZIL_SHARDS="0,2", HF_TOKEN="hf_secret", FRAZIL_S3_SECRET_KEY="s3_secret", FRAZIL_S3_ACCESS_KEY="k"
    )
    assert done.returncode == 0, done.stderr
    task = Task.read(job.spool)
    assert (task.model, task.pipeline, task.prefix) == (model, "StableDiffusionPipeline", PREFIX)
    assert [(shard.index, shard.first, [row.seed for row in shard.rows]) for shard in task.shards] == [
        (0, 0, [0, 1]),
        (2, 4, [4]),
    ]
    assert (task.prompts.count, task.prompts.shards) == (5, 3)
    text = (job.spool / "input" / "task.json").read_text() + done.stderr + done.stdout
    assert "hf_secret" not in text
    assert "s3_secret" not in text
    progress = FetchProgress.read(job.spool)
    assert progress is not None
    assert progress.state == "done"


def test_a_task_is_read_back_as_it_was_written(job, tmp_path):
    task = job.here()
    task.write(tmp_path / "again")
    assert Task.read(tmp_path / "again") == task


def test_fetching_twice_leaves_the_same(job):
    first = job.here()
    assert job.here() == Task.read(job.spool) == first


def test_pictures_of_rows_are_files_of_the_spool(job):
    Image.new("RGB", (8, 8), "red").save(job.folder / "red.png")
    job.rows([{"prompt": "a", "images": {"image": "red.png"}}])
    job.here()
    (row,) = Task.read(job.spool).shards[0].rows
    assert picture_path(job.spool, row.images["image"]).read_bytes() == (job.folder / "red.png").read_bytes()


def test_what_is_stored_of_these_shards_is_listed_and_nothing_else(job):
    store = open_store(job.store)
    mine = [naming.image_key(0, 0, "png"), naming.image_key(1, 2, "png"), naming.thumbnail_key(4, 0)]
    others = [naming.image_key(2, 0, "png"), naming.image_key(12, 0, "png"), "manifest.json"]
    for key in mine + others:
        store.put_bytes(f"{PREFIX}/{key}", b"x", content_type="image/png")
    store.put_bytes(f"default/demo-other/{mine[0]}", b"x", content_type="image/png")
    job.env["FRAZIL_SHARDS"] = "0,2"
    job.here()
    assert sorted(Task.read(job.spool).stored) == sorted(mine)


def test_a_prompt_file_that_changed_fails_the_shard_as_bad_input(job):
    pin = job.here().prompts
    job.env["FRAZIL_PROMPTS_SHA256"] = pin.sha256
    assert job.here().prompts == pin
    job.rows([{"prompt": "another"}])
    with pytest.raises(BadInput, match="is not the file that was inspected"):
        job.here()
    with pytest.raises(TryAgain):
        Task.read(job.spool)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda job: job.spec["model"].update(uri="modle"), 78, "there is no model folder"),
        (lambda job: job.spec["model"].update(uri="stabilityai/sdxl"), 78, "hf://stabilityai/sdxl"),
        (lambda job: job.spec["model"].update(uri="pvc://models/sdxl"), 78, "volume of a cluster"),
        (lambda job: job.spec["model"].update(pipeline="FluxPipelin"), 78, 'did you mean "FluxPipeline"'),
        (lambda job: job.spec.update(sampling={"scheduler": "DDIMSheduler"}), 78, 'did you mean "DDIMScheduler"'),
        (lambda job: job.spec["prompts"].update(uri="prompt.jsonl"), 78, 'did you mean "prompts.jsonl"'),
        (lambda job: job.spec["model"].update(lora=[{"uri": "style.safetensors"}]), 78, "there is no LoRA file"),
        (lambda job: job.rows([{"prompt": "a", "images": {"image": "/etc/passwd"}}]), 65, "images.image"),
        (lambda job: job.rows([{"prompt": "a"}] * 16 + [{"promt": "b"}]), 65, "prompts.jsonl line 17: unknown field"),
        (lambda job: job.env.update(FRAZIL_SHARDS="7"), 78, "shard 7 is beyond the last, 2"),
        (lambda job: job.env.update(FRAZIL_SHARDS="x"), 78, "FRAZIL_SHARDS"),
        (lambda job: job.env.pop("FRAZIL_STORE"), 78, "FRAZIL_STORE"),
        (lambda job: job.env.pop("FRAZIL_PREFIX"), 78, "FRAZIL_PREFIX"),
    ],
)
def test_bad_input_is_one_clear_error_with_its_code(job, change, code, words):
    change(job)
    with pytest.raises(FrazilError) as caught:
        job.here()
    assert (caught.value.exit_code, words in str(caught.value)) == (code, True), str(caught.value)
    assert not (job.spool / "input" / "task.json").exists()


@pytest.mark.parametrize(("name", "code"), [("prompts.jsonl", 65), ("job.yaml", 78)])
def test_the_process_ends_with_the_code_and_says_why_once(job, name, code):
    job.write()
    (job.folder / name).write_text("nonsense")
    done = job.run()
    assert done.returncode == code
    assert name in job.error(done)
    progress = FetchProgress.read(job.spool)
    assert progress is not None
    assert (progress.state, name in progress.what) == ("failed", True)


def test_a_pickle_is_refused_unless_the_job_allows_it(job, model):
    (model / "unet" / "diffusion_pytorch_model.safetensors").rename(model / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BadConfiguration) as caught:
        job.here()
    assert caught.value.field == "spec.model.allowPickle"
    job.spec["model"]["allowPickle"] = True
    assert job.here().pipeline == "StableDiffusionPipeline"


def test_a_lora_that_is_a_pickle_is_refused(job):
    (job.folder / "style.bin").write_bytes(b"\x80\x04.")
    job.spec["model"]["lora"] = [{"uri": "style.bin"}]
    with pytest.raises(BadConfiguration, match="must be a safetensors file"):
        job.here()


def test_a_lora_is_in_the_task_with_its_name_and_scale(job, make_weights):
    make_weights(job.folder / "style.safetensors")
    job.spec["model"]["lora"] = [{"uri": "style.safetensors", "scale": "0.5", "name": "style"}]
    (lora,) = job.here().loras
    assert (lora.name, lora.path, lora.scale) == ("style", job.folder / "style.safetensors", 0.5)


def test_a_fetch_that_is_asked_to_stop_ends_at_once_with_try_again(job, make_model, tmp_path):
    with HubStandIn({"owner/model": make_model(tmp_path / "repository")}, bytes_per_second=1000.0) as hub:
        job.spec["model"]["uri"] = "hf://owner/model"
        job.write()
        process = subprocess.Popen(
            [sys.executable, "-m", "frazil_jobs.inputs.fetch"],
            env=job.env | {"HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "hf")},
        )
        try:
            wait_for(
                lambda: any(name.endswith(".safetensors") for name in hub.downloads()), what="the download to begin"
            )
            progress = FetchProgress.read(job.spool)
            process.terminate()
            assert process.wait(timeout=30) == 75
        finally:
            process.kill()
        assert progress is not None
        assert (progress.state, progress.what) == ("model", "hf://owner/model")
    with pytest.raises(TryAgain):
        Task.read(job.spool)


def test_a_store_that_is_away_is_waited_for_and_anything_else_is_not(job, monkeypatch):
    from frazil_jobs.inputs import fetch as module

    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.01)
    order, access = Order.from_env(job.env), Access.from_env(job.env)
    answers = [TryAgain("away"), TryAgain("away"), "task"]
    asked = []

    def answer(*_):
        asked.append(1)
        found = answers[min(len(asked), len(answers)) - 1]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(module, "fetch", answer)
    assert module._patiently(order, access, seconds=60) == "task"
    assert len(asked) == 3
    asked.clear()
    with pytest.raises(TryAgain):
        module._patiently(order, access, seconds=0)
    assert len(asked) == 1
    asked.clear()
    answers[0] = BadInput("a bad row")
    with pytest.raises(BadInput):
        module._patiently(order, access, seconds=60)
    assert len(asked) == 1


def test_bad_prompts_are_told_before_the_model_is_looked_at(job):
    job.spec["model"]["uri"] = "hf://owner/model"
    job.rows([{"promt": "a"}])
    with pytest.raises(BadInput):
        job.here()


def test_reading_a_task_imports_no_store_no_broker_and_no_torch(job):
    job.here()
    code = (
        "import sys; from pathlib import Path; from frazil_jobs.inputs.task import Task; Task.read(Path(sys.argv[1]));"
        "sys.exit(sum(name in sys.modules for name in ('torch', 'minio', 'redis', 'celery', 'huggingface_hub')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(job.spool)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "shards"),
    [("", None), ("0", (0,)), ("0,2,4", (0, 2, 4)), ("0-3", (0, 1, 2, 3)), (" 4, 0-1 ", (0, 1, 4)), ("2,2", (2,))],
)
def test_shards_are_read_as_lists_and_ranges(text, shards):
    assert parse_shards(text) == shards


@pytest.mark.parametrize("text", ["a", "3-1", "-1", "1,,2", "0-99999999999", "1.5"])
def test_what_names_no_shards_is_refused(text):
    with pytest.raises(BadConfiguration):
        parse_shards(text)


def test_an_order_names_the_variable_that_is_missing():
    with pytest.raises(BadConfiguration) as caught:
        Order.from_env({"FRAZIL_JOB_FILE": "job.yaml"})
    assert caught.value.field == "FRAZIL_SPOOL"


@given(st.integers(0, 999_999), st.integers(1, 5000))
def test_few_listings_cover_every_prompt_of_a_span(first, count):
    count = min(count, 1_000_000 - first)
    prefixes = list(blocks(first, count))
    assert len(prefixes) <= MAX_LISTINGS
    assert len(set(prefixes)) == len(prefixes)
    for index in {first, first + count // 2, first + count - 1}:
        assert any(f"{index:06d}".startswith(prefix) for prefix in prefixes)
    covered = sum(10 ** (6 - len(prefix)) for prefix in prefixes)
    assert covered <= 10 * count + 20


def test_spans_that_touch_are_listed_as_one():
    assert joined([(4, 2), (0, 2), (2, 2), (8, 0), (9, 1)]) == [(0, 6), (9, 1)]


def test_no_key_of_a_large_job_is_missed(folder_store):
    keys = {naming.image_key(index, image, "png") for index in (0, 9, 10, 99, 100, 999, 1000, 1999) for image in (0, 1)}
    for key in keys:
        folder_store.put_bytes(f"{PREFIX}/{key}", b"x", content_type="image/png")
    assert set(stored_keys(folder_store, prefix=PREFIX, output_format="png", spans=[(0, 2000)])) == keys
    coarse = stored_keys(folder_store, prefix=PREFIX, output_format="png", spans=[(5, 30)])
    assert set(coarse) == {key for key in keys if key.startswith(("images/000009", "images/000010"))}
    some = stored_keys(folder_store, prefix=PREFIX, output_format="png", spans=[(10, 90), (1000, 1)])
    assert set(some) == {key for key in keys if key.startswith(("images/000010", "images/000099", "images/001000"))}
