"""Models of the hub: what is asked of it, what is kept, and what its answers become.

The hub can't be reached from here: a server on localhost stands in for it (tests/support/hub_stand_in.py); the client is
the real `huggingface_hub`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from hub_stand_in import HubStandIn, commit_of
from pydantic import SecretStr

from frazil_jobs.api.common import Lora, Model
from frazil_jobs.base.exits import BadConfiguration, TryAgain
from frazil_jobs.inputs import cache
from frazil_jobs.inputs import hub as hub_module
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.cache import Source
from frazil_jobs.inputs.folder import ModelFolder
from frazil_jobs.inputs.models import resolve_lora, resolve_model
from frazil_jobs.inputs.progress import quiet

MODEL = Model(uri="hf://owner/model")
RESOLVE = """
import sys
from pathlib import Path
from frazil_jobs.api.common import Model
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.models import resolve_model
model = resolve_model(Model(uri="hf://owner/model"), base_dir=Path("/"), access=Access.from_env())
print(model.path)
"""


@pytest.fixture
def served(tmp_path, make_model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_module, "_LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    repository = make_model(tmp_path / "repository")
    with HubStandIn({"owner/model": repository}) as hub:
        yield hub


def repository_of(hub: HubStandIn) -> Path:
    return hub.repositories["owner/model"]


def resolve(hub: HubStandIn, tmp_path: Path, model: Model = MODEL, token: str | None = None) -> ModelFolder:
    access = Access(cache=tmp_path / "cache", hub_endpoint=hub.endpoint, hub_token=SecretStr(token) if token else None)
    return resolve_model(model, base_dir=tmp_path, access=access)


def start(hub: HubStandIn, tmp_path: Path, code: str = RESOLVE, stderr: int | None = None) -> subprocess.Popen[str]:
    env = {
        "PATH": os.environ["PATH"],
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_CACHE": str(tmp_path / "hf"),
        "FRAZIL_MODEL_CACHE": str(tmp_path / "cache"),
    }
    return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=stderr, text=True)


def test_a_model_is_downloaded_whole_once_and_found_after_that(served, tmp_path):
    first = resolve(served, tmp_path)
    original = repository_of(served)
    for file in (path for path in original.rglob("*") if path.is_file()):
        assert (first.path / file.relative_to(original)).read_bytes() == file.read_bytes()
    asked = len(served.downloads())
    assert resolve(served, tmp_path).path == first.path
    assert len(served.downloads()) == asked


def test_pickles_other_variants_code_and_pictures_are_not_downloaded(served, tmp_path, make_weights):
    repository = repository_of(served)
    for name in (
        "README.md",
        "unet/diffusion_pytorch_model.bin",
        "unet/model.py",
        "teaser.png",
        "sd_xl_base.safetensors",
    ):
        (repository / name).write_bytes(b"x")
    make_weights(repository / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    folder = resolve(served, tmp_path, Model(uri="hf://owner/model", variant="fp16"))
    names = {file.relative_to(folder.path).as_posix() for file in folder.path.rglob("*") if file.is_file()}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in names
    assert not {name for name in names if name.endswith((".bin", ".py", ".png", ".md"))}
    assert "unet/diffusion_pytorch_model.safetensors" not in names
    assert "vae/diffusion_pytorch_model.safetensors" in names, "a component without the variant gives its plain weights"


def test_only_pickled_weights_are_refused_before_any_weights_are_downloaded(served, tmp_path):
    unet = repository_of(served) / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model.bin")
    with pytest.raises(BadConfiguration) as caught:
        resolve(served, tmp_path)
    assert caught.value.field == "spec.model.allowPickle"
    assert served.downloads() == ["model_index.json"]


def test_a_new_commit_is_a_new_folder_and_the_old_one_stays(served, tmp_path, make_weights):
    old = resolve(served, tmp_path)
    before = (old.path / "unet/diffusion_pytorch_model.safetensors").read_bytes()
    make_weights(repository_of(served) / "unet" / "diffusion_pytorch_model.safetensors", seed=7)
    new = resolve(served, tmp_path)
    assert new.path != old.path
    assert (old.path / "unet/diffusion_pytorch_model.safetensors").read_bytes() == before


def test_a_pinned_commit_in_the_cache_is_used_without_asking_the_hub(served, tmp_path):
    pinned = Model(uri="hf://owner/model", revision=commit_of(repository_of(served)))
    resolve(served, tmp_path, pinned)
    served.asked.clear()
    resolve(served, tmp_path, pinned)
    assert served.asked == []


def test_a_hub_that_is_down_is_no_obstacle_for_what_was_fetched_before(served, tmp_path):
    first = resolve(served, tmp_path)
    served.stop()
    assert resolve(served, tmp_path).path == first.path


def test_a_hub_that_is_down_is_try_again_with_a_way_out(served, tmp_path):
    served.stop()
    with pytest.raises(TryAgain, match=r"the hub can't be reached for hf://owner/model.*s3:// copy"):
        resolve(served, tmp_path)


def test_offline_mode_is_bad_configuration_with_a_way_out(served, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadConfiguration, match="HF_HUB_OFFLINE"):
        resolve(served, tmp_path)


def test_a_busy_hub_is_asked_again(served, tmp_path):
    served.failures = 2
    resolve(served, tmp_path)
    assert served.failures == 0


def test_an_unknown_model_is_bad_configuration(served, tmp_path):
    with pytest.raises(BadConfiguration, match="the hub shows no model owner/modle") as caught:
        resolve(served, tmp_path, Model(uri="hf://owner/modle"))
    assert caught.value.field == "spec.model.uri"
    assert "HF_TOKEN" in str(caught.value)


def test_an_unknown_revision_is_named(served, tmp_path):
    with pytest.raises(BadConfiguration, match="no revision 'v9'") as caught:
        resolve(served, tmp_path, Model(uri="hf://owner/model", revision="v9"))
    assert caught.value.field == "spec.model.revision"


def test_a_gated_model_says_that_a_licence_has_to_be_accepted(served, tmp_path):
    served.gated = True
    with pytest.raises(BadConfiguration, match="licence"):
        resolve(served, tmp_path)


def test_a_token_opens_a_private_model_and_is_shown_in_no_error(served, tmp_path):
    served.token = "hf_secret"
    assert resolve(served, tmp_path, token="hf_secret").pipeline == "StableDiffusionPipeline"
    with pytest.raises(BadConfiguration) as caught:
        resolve(served, tmp_path, token="hf_wrong")
    assert "hf_wrong" not in str(caught.value)
    assert "hf_wrong" not in repr(Access(cache=tmp_path, hub_token=SecretStr("hf_wrong")))


def test_bytes_that_are_not_what_was_announced_are_never_used(served, tmp_path):
    served.damaged = "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(TryAgain, match="announced were"):
        resolve(served, tmp_path)
    served.damaged = None
    resolve(served, tmp_path)


@pytest.mark.parametrize("name", ["unet/../../../evil.json", "unet//evil.json", "/etc/evil.json", "unet\\evil.json"])
def test_a_repository_can_t_write_outside_its_folder(served, tmp_path, name):
    served.extra_names = (name,)
    with suppress(BadConfiguration):  # a name outside all components is only left out
        resolve(served, tmp_path)
    assert not list(tmp_path.parent.rglob("evil.json"))
    assert not Path("/etc/evil.json").exists()


def test_a_fetch_that_was_killed_goes_on_with_the_files_that_are_missing(served, tmp_path, make_weights):
    big = make_weights(repository_of(served) / "unet" / "diffusion_pytorch_model.safetensors", size=2_000_000)
    served.bytes_per_second = 1e5  # the weights would take more than a minute
    process = start(served, tmp_path)
    deadline = time.monotonic() + 60
    cache = tmp_path / "cache"
    while not (
        list(cache.rglob("*.incomplete")) and [file for file in cache.glob("hf--*/files/**/*") if file.is_file()]
    ):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (home,) = (tmp_path / "cache").glob("hf--*")
    assert not (home / ".complete").exists(), "a half of a model is never complete"
    arrived = {file.relative_to(home / "files").as_posix() for file in (home / "files").rglob("*") if file.is_file()}
    assert arrived
    served.bytes_per_second = None
    served.asked.clear()
    folder = resolve(served, tmp_path)
    assert (folder.path / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == big.read_bytes()
    assert not arrived & set(served.downloads()) - {"model_index.json"}
    assert not (home / "partial").exists()


def test_two_fetches_at_once_download_once(served, tmp_path, make_weights):
    make_weights(repository_of(served) / "unet" / "diffusion_pytorch_model.safetensors", size=250_000)
    served.bytes_per_second = 2e6
    processes = [start(served, tmp_path) for _ in range(2)]
    folders = {process.communicate(timeout=120)[0].splitlines()[-1] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(folders) == 1
    weights = [name for name in served.downloads() if name.endswith(".safetensors")]
    assert sorted(weights) == sorted(set(weights)), "no weights came twice"


def test_a_damaged_file_of_the_cache_is_fetched_again_and_no_other(served, tmp_path):
    folder = resolve(served, tmp_path).path
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({"b": 0}))
    served.asked.clear()
    again = resolve(served, tmp_path).path
    assert (again / "tokenizer" / "vocab.json").read_text() == '{"a": 0}'
    downloaded = set(served.downloads()) - {"model_index.json"}
    assert downloaded == {"unet/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json"}


def test_a_cache_that_can_t_be_written_is_named(served, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(BadConfiguration, match="FRAZIL_MODEL_CACHE"):
        resolve(served, tmp_path)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_cache_without_room_is_told_before_the_download(served, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(BadConfiguration, match="10 bytes free"):
        resolve(served, tmp_path)
    assert served.downloads() == ["model_index.json"]


def test_a_disk_that_is_full_is_named_with_the_way_out(served, tmp_path, make_weights):
    make_weights(repository_of(served) / "unet" / "diffusion_pytorch_model.safetensors", size=500_000)
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))" + RESOLVE
    process = start(served, tmp_path, code, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "BadConfiguration: spec.model.cache: the model cache" in errors
    assert "FRAZIL_MODEL_CACHE" in errors


def test_a_lock_that_another_fetch_keeps_is_try_again(served, tmp_path):
    home = tmp_path / "cache" / "key"
    home.mkdir(parents=True)
    source = Source(label="hf://owner/model", identity="1", files=(), download=lambda file, folder: folder)
    with FileLock(home / ".lock"), pytest.raises(TryAgain, match="another process has been fetching hf://owner/model"):
        cache.ensure(tmp_path / "cache", "key", source, report=quiet, lock_seconds=0.2)
    assert cache.ensure(tmp_path / "cache", "key", source, report=quiet, lock_seconds=0.2) == home / "files"


def test_a_lora_of_the_hub_is_its_only_safetensors_file_or_the_one_named(served, tmp_path, make_weights):
    repository = tmp_path / "lora"
    make_weights(repository / "style.safetensors")
    served.repositories["owner/lora"] = repository
    access = Access(cache=tmp_path / "cache", hub_endpoint=served.endpoint)
    found = resolve_lora(Lora(uri="hf://owner/lora", scale="0.8"), 0, base_dir=tmp_path, access=access)
    assert (found.name, found.scale, found.path.name) == ("lora0", 0.8, "style.safetensors")
    make_weights(repository / "other.safetensors")
    with pytest.raises(BadConfiguration, match=r"choose one with weightName: other\.safetensors, style\.safetensors"):
        resolve_lora(Lora(uri="hf://owner/lora"), 0, base_dir=tmp_path, access=access)
    named = Lora(uri="hf://owner/lora", weight_name="other.safetensors", name="mine")
    assert resolve_lora(named, 1, base_dir=tmp_path, access=access).path.name == "other.safetensors"
    with pytest.raises(BadConfiguration, match=r'did you mean "other\.safetensors"') as caught:
        wrong = Lora(uri="hf://owner/lora", weight_name="othr.safetensors")
        resolve_lora(wrong, 1, base_dir=tmp_path, access=access)
    assert caught.value.field == "spec.model.lora[1].weightName"
