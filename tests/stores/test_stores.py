"""One contract, two stores: a folder, and a real S3 server."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from servers import RealS3, free_port

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.base.files import sha256_of
from frazil_jobs.stores import ObjectStore, StoreConfig, StoreDenied, StoreUnreachable, open_store

HOSTILE = ["", "/x", "../x", "a/../x", "a//x", "./x", "a/./x", "a\\x", "a\nx", "x\0", "a/", "é\u2028x", "x" * 300]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    if request.param == "folder":
        yield open_store(StoreConfig(uri=f"file://{tmp_path}/store"))
        return
    server: RealS3 = request.getfixturevalue("s3_server")
    bucket = server.bucket("contract")
    yield open_store(server.config(bucket, hashlib.sha256(str(tmp_path).encode()).hexdigest()[:8]))


def test_what_is_put_is_there_whole_with_its_hash_and_metadata(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(os.urandom(70_000))
    digest = sha256_of(path)
    metadata = {"prompt": 'é “ring” <b>"', "shard": "3", "image_index": "00"}
    store.put_file("a/b/p.png", path, sha256=digest, content_type="image/png", metadata=metadata)
    info = store.stat("a/b/p.png")
    assert info is not None
    assert (info.key, info.size, info.sha256, info.content_type) == ("a/b/p.png", 70_000, digest, "image/png")
    assert dict(info.metadata) == metadata
    assert store.get_bytes("a/b/p.png") == path.read_bytes()
    store.get_file("a/b/p.png", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


def test_bytes_can_be_put_over_an_object(store: ObjectStore) -> None:
    store.put_bytes("k", b"one", content_type="text/plain")
    info = store.put_bytes("k", b"three", content_type="text/plain")
    assert (info.size, info.sha256) == (5, hashlib.sha256(b"three").hexdigest())
    assert store.get_bytes("k") == b"three"


def test_a_listing_is_in_order_and_below_its_prefix_only(store: ObjectStore) -> None:
    for key in ("a/2", "a/10", "a/b/1", "ab/1", "c"):
        store.put_bytes(key, b"x", content_type="text/plain")
    assert [info.key for info in store.list("a/")] == ["a/10", "a/2", "a/b/1"]
    assert [info.key for info in store.list("a")] == ["a/10", "a/2", "a/b/1", "ab/1"]
    assert [info.key for info in store.list()] == ["a/10", "a/2", "a/b/1", "ab/1", "c"]
    assert [info.size for info in store.list("c")] == [1]
    assert list(store.list("nothing/")) == []


def test_what_is_deleted_is_gone_and_deleting_nothing_is_no_error(store: ObjectStore) -> None:
    store.put_bytes("d/1", b"x", content_type="text/plain")
    store.delete(["d/1", "d/2"])
    assert store.stat("d/1") is None
    assert list(store.list("d/")) == []


def test_an_object_that_is_not_there_is_told_apart(store: ObjectStore, tmp_path: Path) -> None:
    assert store.stat("no/such") is None
    with pytest.raises(FileNotFoundError):
        store.get_bytes("no/such")
    with pytest.raises(FileNotFoundError):
        store.get_file("no/such", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_limit_stops_a_large_object(store: ObjectStore) -> None:
    store.put_bytes("large", b"x" * 100, content_type="text/plain")
    with pytest.raises(ValueError, match="100 bytes"):
        store.get_bytes("large", limit=99)


@pytest.mark.parametrize("key", HOSTILE, ids=repr)
def test_a_key_that_could_leave_the_root_is_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError):
        store.put_bytes(key, b"x", content_type="text/plain")
    with pytest.raises(ValueError):
        store.get_bytes(key)


def test_a_large_file_goes_up_in_parts_and_keeps_its_hash(s3_server: RealS3, tmp_path: Path) -> None:
    store = open_store(s3_server.config(s3_server.bucket("parts")))
    path = tmp_path / "video"
    path.write_bytes(os.urandom(1 << 20) * 34)
    store.put_file("v.mp4", path, sha256=sha256_of(path), content_type="video/mp4")
    store.get_file("v.mp4", tmp_path / "copy")
    assert sha256_of(tmp_path / "copy") == sha256_of(path)
    info = store.stat("v.mp4")
    assert info is not None
    assert info.sha256 == sha256_of(path)


@pytest.mark.parametrize("changes", [{"secret_key": "wrong"}, {"access_key": "nobody", "secret_key": "x"}])
def test_a_store_that_refuses_says_why_and_never_shows_a_secret(s3_server: RealS3, changes: dict[str, str]) -> None:
    config = s3_server.config(s3_server.bucket("mine"))
    config = StoreConfig.model_validate({**config.model_dump(), "secret_key": s3_server.secret_key, **changes})
    with pytest.raises(StoreDenied) as caught:
        open_store(config).stat("x") or open_store(config).put_bytes("x", b"", content_type="text/plain")
    assert s3_server.endpoint in str(caught.value)
    assert s3_server.secret_key not in str(caught.value)
    assert "wrong" not in str(caught.value).replace("is wrong", "")


def test_an_endpoint_that_does_not_answer_is_something_to_try_again() -> None:
    config = StoreConfig(uri="s3://bucket", endpoint=f"http://127.0.0.1:{free_port()}", access_key="a", secret_key="b")
    with pytest.raises(StoreUnreachable, match=r"doesn't answer: connection refused \(check the endpoint"):
        open_store(config).stat("x")


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("http://store.invalid", "its name can't be resolved"),
        ("https://127.0.0.1:{port}", "TLS fails"),
        ("http://127.0.0.1:{port}", "is no S3 server"),
    ],
)
def test_why_a_store_does_not_answer_is_said_in_words(endpoint: str, why: str) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = StoreConfig(
            uri="s3://bucket", endpoint=endpoint.format(port=server.server_port), access_key="a", secret_key="b"
        )
        try:
            with pytest.raises(StoreUnreachable, match=why):
                open_store(config).put_bytes("x", b"1", content_type="text/plain")
        finally:
            server.shutdown()


def test_an_endpoint_that_never_ends_its_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frazil_jobs.stores.s3.READ_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = StoreConfig(uri="s3://bucket", endpoint=endpoint, access_key="a", secret_key="b")
        with pytest.raises(StoreUnreachable):
            open_store(config).stat("x")


def test_a_folder_that_can_not_be_written_is_told_before_anything(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = open_store(StoreConfig(uri=f"file://{tmp_path}/file"))
    with pytest.raises(StoreDenied, match="can't use the store"):
        store.put_bytes("x", b"", content_type="text/plain")


def test_a_folder_s_name_may_hold_what_a_uri_has_to_quote(tmp_path: Path) -> None:
    folder = tmp_path / "a store é 100%"
    open_store(StoreConfig(uri=folder.as_uri())).put_bytes("x", b"", content_type="text/plain")
    assert (folder / "x").exists()


@pytest.mark.parametrize("uri", ["s3://", "ftp://host/x", "results", "s3:///key"])
def test_a_uri_that_names_no_store_is_told(uri: str) -> None:
    with pytest.raises(BadConfiguration, match="names no store"):
        open_store(StoreConfig(uri=uri))


@pytest.mark.parametrize("uri", ["s3://My_Bucket/x", "s3://b/x"])
def test_a_name_that_no_bucket_can_have_is_told_as_one(uri: str) -> None:
    with pytest.raises(BadConfiguration, match=r"--store: '\w+' can't be a bucket's name"):
        open_store(StoreConfig(uri=uri))


def test_a_config_survives_the_environment_and_reads_secrets_from_files(tmp_path: Path) -> None:
    config = StoreConfig(uri="s3://b/p", endpoint="http://h:1", access_key="a", secret_key="s", region="r")
    assert StoreConfig.from_env(config.to_env()) == config
    assert "'s'" not in repr(config)
    (tmp_path / "secret").write_text("s\n")
    env = {**config.to_env(), "FRAZIL_S3_SECRET_KEY_FILE": str(tmp_path / "secret")}
    del env["FRAZIL_S3_SECRET_KEY"]
    assert StoreConfig.from_env(env) == config
    assert StoreConfig.from_env({}) is None
