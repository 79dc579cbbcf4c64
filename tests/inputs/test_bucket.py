"""Models, prompts and pictures in a bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from servers import RealS3

from frazil_jobs.api.common import Lora, Model
from frazil_jobs.api.generationjob import Prompts
from frazil_jobs.base.exits import BadConfiguration, BadInput, TryAgain
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.models import resolve_lora, resolve_model
from frazil_jobs.inputs.pictures import Pictures
from frazil_jobs.inputs.prompts import inspect_prompts, open_prompts, read_rows
from frazil_jobs.stores import ObjectStore, StoreConfig, open_store

BUCKET = "inputs"
RESOLVE = """
import sys
from pathlib import Path
from frazil_jobs.api.common import Model
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.models import resolve_model
print(resolve_model(Model(uri=sys.argv[1]), base_dir=Path("/"), access=Access.from_env()).path)
"""


@pytest.fixture
def place(request) -> str:
    """A prefix of this test's own."""
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


@pytest.fixture
def bucket(s3_server: RealS3) -> ObjectStore:
    s3_server.bucket(BUCKET)
    return open_store(s3_server.config(BUCKET))


@pytest.fixture
def access(s3_server: RealS3, tmp_path: Path) -> Access:
    return Access(cache=tmp_path / "cache", store=s3_server.config("results"))


def upload(store: ObjectStore, folder: Path, prefix: str) -> None:
    for file in (path for path in folder.rglob("*") if path.is_file()):
        key = f"{prefix}/{file.relative_to(folder).as_posix()}"
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        store.put_file(key, file, sha256=digest, content_type="application/octet-stream")


def test_a_model_of_a_bucket_is_downloaded_once_and_as_it_is(bucket, access, model, place, tmp_path):
    upload(bucket, model, place)
    asked = Model(uri=f"s3://{BUCKET}/{place}")
    folder = resolve_model(asked, base_dir=tmp_path, access=access)
    for file in (path for path in model.rglob("*") if path.is_file()):
        assert (folder.path / file.relative_to(model)).read_bytes() == file.read_bytes()
    before = folder.path.stat().st_mtime_ns
    assert resolve_model(asked, base_dir=tmp_path, access=access).path.stat().st_mtime_ns == before


def test_a_model_that_was_replaced_in_the_bucket_is_fetched_anew_even_at_the_same_size(
    s3_server, bucket, access, model, make_weights, place, tmp_path
):
    for file in (path for path in model.rglob("*") if path.is_file()):
        s3_server.client().fput_object(BUCKET, f"{place}/{file.relative_to(model).as_posix()}", str(file))
    asked = Model(uri=f"s3://{BUCKET}/{place}")
    first = resolve_model(asked, base_dir=tmp_path, access=access)
    name = "unet/diffusion_pytorch_model.safetensors"
    s3_server.client().fput_object(BUCKET, f"{place}/{name}", str(make_weights(model / name, seed=9)))
    second = resolve_model(asked, base_dir=tmp_path, access=access)
    assert first.path != second.path
    assert (second.path / name).read_bytes() == (model / name).read_bytes()


def test_an_object_that_is_not_what_its_sha256_says_is_never_used(bucket, access, model, place, tmp_path):
    upload(bucket, model, place)
    name = "unet/diffusion_pytorch_model.safetensors"
    bucket.put_file(f"{place}/{name}", model / name, sha256="0" * 64, content_type="application/octet-stream")
    with pytest.raises(TryAgain, match="announced were"):
        resolve_model(Model(uri=f"s3://{BUCKET}/{place}"), base_dir=tmp_path, access=access)
    assert not list((tmp_path / "cache").glob("*/.complete"))


@pytest.mark.parametrize("key", ["unet/../../../evil", "/etc/evil", "unet//evil", "unet\\evil", "a\nb"])
def test_a_key_that_would_be_a_path_out_of_the_folder_is_refused(access, key, tmp_path, monkeypatch, place):
    from frazil_jobs.inputs import bucket as bucket_module
    from frazil_jobs.inputs.locations import Bucket
    from frazil_jobs.stores import ObjectInfo

    where = Bucket(BUCKET, place)
    infos = [ObjectInfo(key=f"{place}/{key}", size=1)]
    with pytest.raises(BadConfiguration, match="can't be a file below a folder"):
        bucket_module._listed(infos, prefix=f"{place}/", where=where, field="spec.model.uri")


def test_an_object_beside_a_folder_of_the_same_name_is_refused(access, place):
    from frazil_jobs.inputs import bucket as bucket_module
    from frazil_jobs.inputs.locations import Bucket
    from frazil_jobs.stores import ObjectInfo

    infos = [ObjectInfo(key=f"{place}/unet", size=1), ObjectInfo(key=f"{place}/unet/config.json", size=1)]
    with pytest.raises(BadConfiguration, match="both as an object and as a folder"):
        bucket_module._listed(infos, prefix=f"{place}/", where=Bucket(BUCKET, place), field="spec.model.uri")


def test_nothing_at_a_prefix_and_no_index_below_it_are_told_apart(bucket, access, place, tmp_path):
    with pytest.raises(BadConfiguration, match="there is nothing at s3://"):
        resolve_model(Model(uri=f"s3://{BUCKET}/{place}"), base_dir=tmp_path, access=access)
    bucket.put_bytes(f"{place}/sdxl.safetensors", b"x", content_type="application/octet-stream")
    with pytest.raises(BadConfiguration, match=r"no model_index\.json.*'sdxl\.safetensors', which has to be converted"):
        resolve_model(Model(uri=f"s3://{BUCKET}/{place}"), base_dir=tmp_path, access=access)


def test_no_such_bucket_and_wrong_credentials_name_the_field_and_never_the_secret(s3_server, bucket, access, tmp_path):
    with pytest.raises(BadConfiguration) as caught:
        resolve_model(Model(uri="s3://no-such-bucket/model"), base_dir=tmp_path, access=access)
    assert caught.value.field == "spec.model.uri"
    wrong = StoreConfig(uri="s3://x", endpoint=s3_server.endpoint, access_key=s3_server.access_key, secret_key="not-it")
    with pytest.raises(BadConfiguration) as caught:
        resolve_model(Model(uri=f"s3://{BUCKET}/m"), base_dir=tmp_path, access=Access(cache=tmp_path, store=wrong))
    assert "not-it" not in str(caught.value)
    with pytest.raises(BadConfiguration, match="FRAZIL_S3_ENDPOINT"):
        resolve_model(Model(uri=f"s3://{BUCKET}/m"), base_dir=tmp_path, access=Access(cache=tmp_path))


def test_a_store_that_is_down_is_try_again(tmp_path):
    nobody = StoreConfig(uri="s3://x", endpoint="http://127.0.0.1:9", access_key="a", secret_key="b")
    access = Access(cache=tmp_path, store=nobody)
    with pytest.raises(TryAgain):
        resolve_model(Model(uri="s3://models/sdxl"), base_dir=tmp_path, access=access)
    with pytest.raises(TryAgain):
        inspect_prompts(Prompts(uri="s3://data/prompts.jsonl"), base_dir=tmp_path, access=access)


def test_a_lora_is_an_object_or_named_below_a_prefix(bucket, access, make_weights, place, tmp_path):
    upload(bucket, make_weights(tmp_path / "lora" / "style.safetensors").parent, place)
    for lora in (
        Lora(uri=f"s3://{BUCKET}/{place}/style.safetensors"),
        Lora(uri=f"s3://{BUCKET}/{place}"),
        Lora(uri=f"s3://{BUCKET}/{place}", weight_name="style.safetensors"),
    ):
        found = resolve_lora(lora, 0, base_dir=tmp_path, access=access)
        assert found.path.read_bytes() == (tmp_path / "lora" / "style.safetensors").read_bytes()


def test_a_prompt_file_of_a_bucket_is_inspected_and_read_with_pictures_beside_it(bucket, access, place, tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    picture = (tmp_path / "red.png").read_bytes()
    bucket.put_bytes(f"{place}/img/red.png", picture, content_type="image/png")
    lines = b'{"prompt": "a", "images": {"image": "img/red.png"}}\n{"prompt": "b"}\n'
    bucket.put_bytes(f"{place}/prompts.jsonl", lines, content_type="application/jsonl")
    prompts = Prompts(uri=f"s3://{BUCKET}/{place}/prompts.jsonl", per_shard=1)
    pin = inspect_prompts(prompts, base_dir=tmp_path, access=access)
    assert (pin.sha256, pin.shards) == (hashlib.sha256(lines).hexdigest(), 2)
    assert read_rows(prompts, pin, first=1, count=1, base_dir=tmp_path, access=access)[0].prompt == "b"
    with open_prompts(prompts, base_dir=tmp_path, access=access) as file:
        pictures = Pictures(access=access, spool=tmp_path / "spool", root=file.root, prompts_name=file.name)
        (first, _) = [pictures.localized(row, where) for _, where, row in file.rows([(0, 2)])]
    assert (tmp_path / "spool" / "input" / first.images["image"]).read_bytes() == picture
    bucket.put_bytes(f"{place}/prompts.jsonl", lines + b"\n", content_type="application/jsonl")
    with pytest.raises(BadInput, match="is not the file that was inspected"):
        read_rows(prompts, pin, first=1, count=1, base_dir=tmp_path, access=access)


def test_no_such_object_is_bad_configuration(bucket, access, tmp_path):
    with pytest.raises(BadConfiguration, match=r"there is no object s3://inputs/none\.jsonl"):
        inspect_prompts(Prompts(uri=f"s3://{BUCKET}/none.jsonl"), base_dir=tmp_path, access=access)


def test_a_download_that_was_cut_off_goes_on_after_the_bytes_that_are_there(bucket, place, tmp_path):
    data = os.urandom(3_000_000)
    bucket.put_bytes(f"{place}/big", data, content_type="application/octet-stream")
    info = bucket.stat(f"{place}/big")
    half = bytes([data[0] ^ 1]) + data[1:1_500_000]  # one bit is wrong, to see that these bytes are kept
    part = tmp_path / f".big.{info.etag}.part"
    part.write_bytes(half)
    bucket.get_file(f"{place}/big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == half + data[1_500_000:]
    assert not part.exists()
    part.write_bytes(data + b"more than there is")
    bucket.get_file(f"{place}/big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == data


def start(s3: RealS3, tmp_path: Path, uri: str) -> subprocess.Popen[str]:
    env = {"PATH": os.environ["PATH"], "FRAZIL_MODEL_CACHE": str(tmp_path / "cache"), **s3.config("results").to_env()}
    return subprocess.Popen([sys.executable, "-c", RESOLVE, uri], env=env, stdout=subprocess.PIPE, text=True)


def test_fetches_that_race_and_are_killed_leave_one_whole_model(
    s3_server: RealS3, bucket, make_model: Callable[..., Path], place, tmp_path, access
):
    model = make_model(tmp_path / "large", size=8_000_000)
    upload(bucket, model, place)
    uri = f"s3://{BUCKET}/{place}"
    first, second = start(s3_server, tmp_path, uri), start(s3_server, tmp_path, uri)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cache").rglob("*.part")):
        assert time.monotonic() < deadline
        assert None in (first.poll(), second.poll()), "both ended before one was seen downloading"
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    path = Path(output.splitlines()[-1])
    for file in (found for found in model.rglob("*") if found.is_file()):
        assert (path / file.relative_to(model)).read_bytes() == file.read_bytes()
    assert resolve_model(Model(uri=uri), base_dir=tmp_path, access=access).path == path
