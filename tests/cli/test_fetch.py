"""`frazil fetch`: verified, resumable, and never outside of the folder that was asked for."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import wait_for

from frazil_cli.download import Wanted, fetch_all, fetch_one, matching, target_of
from frazil_cli.errors import code_of
from frazil_cli.locating import locate, split_address, uids
from frazil_jobs.base.exits import BadConfiguration, BadInput, TryAgain
from frazil_jobs.outputs.manifest import Manifest, Output
from frazil_jobs.stores import StoreConfig, open_store

PREFIX = "default/ice-0a1b2c3d"


def results(
    config,
    *,
    prefix=PREFIX,
    count=12,
    created_at="2026-01-01T00:00:00+00:00",
    manifest=True,
    key="images/{:06d}-00.png",
):
    """A finished job in a store: some objects, and the manifest that names them."""
    store = open_store(config)
    rows = []
    for index in range(count):
        data = f"image {index} of {prefix}".encode() * 100
        name = key.format(index)
        if ".." not in name:
            store.put_bytes(f"{prefix}/{name}", data, content_type="image/png")
        rows.append(
            Output(
                key=name,
                prompt_index=index,
                image_index=0,
                prompt="a",
                seed=index,
                sha256=hashlib.sha256(data).hexdigest(),
                size=len(data),
                content_type="image/png",
            )
        )
    if manifest:
        found = Manifest(
            name="ice",
            namespace="default",
            uid=prefix[-8:],
            prefix=prefix,
            mode="Exact",
            changes="nothing",
            prompts_sha256="0" * 64,
            total=count,
            stored=count,
            bytes=1,
            created_at=created_at,
            spec={},
            outputs=rows,
        )
        store.put_bytes(
            f"{prefix}/manifest.json", found.model_dump_json(by_alias=True).encode(), content_type="application/json"
        )
    return rows


@pytest.fixture(params=["folder", "s3"])
def config(request, tmp_path):
    """Each kind of store."""
    if request.param == "folder":
        return StoreConfig(uri=(tmp_path / "a store").as_uri())
    server = request.getfixturevalue("s3_server")
    return server.config(server.bucket("fetch"), tmp_path.name)


def told(config):
    """Options and environment for a store."""
    env = {"FRAZIL_S3_ACCESS_KEY": config.access_key or "", "FRAZIL_S3_SECRET_KEY": ""}
    if config.secret_key:
        env["FRAZIL_S3_SECRET_KEY"] = config.secret_key.get_secret_value()
    options = ["--store", config.uri if not config.is_folder else str(config.folder)]
    return options + (["--endpoint", config.endpoint] if config.endpoint else []), env


def test_a_second_fetch_fetches_only_what_is_missing_or_damaged(frazil, config):
    rows = results(config)
    options, frazil.env = told(config)
    first = json.loads(frazil("fetch", "ice", *options, "--to", "here", "--json").stdout)
    assert (first["fetched"], first["alreadyHere"]) == (13, 0)
    here = frazil.folder / "here"
    (here / rows[3].key).unlink()
    (here / rows[5].key).write_bytes(b"x" * rows[5].size)
    (here / rows[7].key).write_bytes(b"short")
    untouched = (here / rows[0].key).stat().st_mtime_ns
    second = json.loads(frazil("fetch", "ice", *options, "--to", "here", "--json").stdout)
    assert (second["fetched"], second["alreadyHere"]) == (3, 10)
    assert (here / rows[0].key).stat().st_mtime_ns == untouched
    for row in rows:
        assert hashlib.sha256((here / row.key).read_bytes()).hexdigest() == row.sha256


def test_a_killed_fetch_goes_on_where_it_was(frazil):
    config = StoreConfig(uri=frazil.store.as_uri())
    rows = results(config, count=3000)
    process = frazil.start("fetch", "ice", "--store", frazil.store, "--to", "here", "--jobs", "2")
    images = frazil.folder / "here" / "images"
    wait_for(lambda: images.is_dir() and len(list(images.iterdir())) > 100, what="some files")
    process.kill()
    process.wait()
    whole = [path for path in images.iterdir() if not path.name.startswith(".")]
    assert 0 < len(whole) < 3000
    again = json.loads(frazil("fetch", "ice", "--store", frazil.store, "--to", "here", "--json").stdout)
    assert again["files"] == 3001
    assert again["alreadyHere"] >= len(whole)
    assert sorted(path.name for path in images.iterdir()) == sorted(row.key.removeprefix("images/") for row in rows)


def test_what_the_store_holds_damaged_is_told(frazil):
    config = StoreConfig(uri=frazil.store.as_uri())
    rows = results(config)
    (frazil.store / PREFIX / rows[2].key).write_bytes(b"damaged")
    ended = frazil("fetch", "ice", "--store", frazil.store, "--to", "here")
    assert ended.returncode == 65, ended.stderr
    assert rows[2].key in ended.stderr
    assert not (frazil.folder / "here" / rows[2].key).exists()


@pytest.mark.parametrize("key", ["../{:06d}.png", "/etc/{:06d}", "images/.{:06d}", "images/../../{:06d}", "a\\{:06d}"])
def test_a_key_that_would_leave_the_folder_is_refused(frazil, key):
    config = StoreConfig(uri=frazil.store.as_uri())
    results(config, count=0)
    manifest = frazil.store / PREFIX / "manifest.json"
    document = json.loads(manifest.read_text())
    row = {
        "promptIndex": 0,
        "imageIndex": 0,
        "prompt": "a",
        "seed": 0,
        "sha256": "0" * 64,
        "size": 1,
        "contentType": "image/png",
    }
    document["outputs"] = [{**row, "key": key.format(1)}]
    manifest.write_text(json.dumps(document))
    ended = frazil("fetch", "ice", "--store", frazil.store, "--to", "here")
    assert ended.returncode == 65, ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="outside"):
        target_of(tmp_path / "here", "images/a.png")


def test_a_job_without_manifest_says_how_far_it_is(frazil):
    config = StoreConfig(uri=frazil.store.as_uri())
    results(config, count=4, manifest=False)
    store = open_store(config)
    store.put_bytes(f"{PREFIX}/job.json", json.dumps({"outputs": 9}).encode(), content_type="application/json")
    ended = frazil("fetch", "ice", "--store", frazil.store)
    assert ended.returncode == 75
    assert "4 of 9 outputs are stored" in ended.stderr
    assert "--partial" in ended.stderr
    partial = frazil("fetch", "ice", "--store", frazil.store, "--partial", "--json")
    assert partial.returncode == 0, partial.stderr
    assert (json.loads(partial.stdout)["files"], json.loads(partial.stdout)["complete"]) == (4, False)


def test_an_unknown_job_is_a_configuration_error(frazil):
    ended = frazil("fetch", "nobody", "--store", frazil.store)
    assert ended.returncode == 78
    assert "nobody" in ended.stderr


def test_only_takes_what_fits():
    keys = ["images/000000-00.png", "thumbnails/000000-00.webp", "manifest.json"]
    wanted = [Wanted(key) for key in keys]
    assert [one.key for one in matching(wanted, "*.png")] == keys[:1]
    assert [one.key for one in matching(wanted, "thumbnails/*")] == keys[1:2]
    assert [one.key for one in matching(wanted, None)] == keys


def test_a_name_means_the_newest_finished_job_and_no_longer_name(config):
    results(config, prefix="default/ice-00000001", count=1, created_at="2026-01-01T00:00:00+00:00")
    results(config, prefix="default/ice-0000000f", count=1, created_at="2026-03-01T00:00:00+00:00")
    results(config, prefix="default/ice-ffffffff", count=1, created_at="2026-02-01T00:00:00+00:00")
    results(config, prefix="default/ice-cream-00000002", count=1)
    results(config, prefix="default/ice-bbb-00000002", count=1)
    store = open_store(config)
    assert uids(store, config, "default/ice-") == {"00000001", "0000000f", "ffffffff"}
    found = locate(store, config, "ice", namespace="default")
    assert found.prefix == "default/ice-0000000f"
    assert len(found.others) == 2


def test_a_job_in_a_folder_of_its_own_is_named_with_the_folder(config):
    results(config, prefix="default/ads/may/ice-00000001", count=1)
    store = open_store(config)
    assert locate(store, config, "ads/may/ice", namespace="default").prefix == "default/ads/may/ice-00000001"
    assert locate(store, config, "default/ads/may/ice-00000001", namespace="x").prefix == "default/ads/may/ice-00000001"
    with pytest.raises(BadConfiguration):
        locate(store, config, "ads/june/ice", namespace="default")


def test_an_address_is_a_root_and_a_prefix(tmp_path):
    assert split_address("s3://bucket/a/default/ice-0a1b2c3d") == ("s3://bucket/a", "default/ice-0a1b2c3d")
    assert split_address("s3://bucket/default/ice-0a1b2c3d/") == ("s3://bucket", "default/ice-0a1b2c3d")
    assert split_address("ice") == (None, "ice")
    assert split_address("default/ice-0a1b2c3d") == (None, "default/ice-0a1b2c3d")
    results(StoreConfig(uri=tmp_path.as_uri()), count=1)
    assert split_address(f"{tmp_path}/{PREFIX}") == (tmp_path.as_uri(), PREFIX)
    with pytest.raises(BadConfiguration):
        split_address("s3://bucket/ice")


def test_a_store_that_comes_back_soon_is_waited_for(tmp_path, tmp_path_factory, monkeypatch):
    from servers import RealS3

    server = RealS3(tmp_path_factory.mktemp("away"))
    server.start()
    try:
        config = server.config(server.bucket("away"))
        rows = results(config, count=1)
        server.kill()
        monkeypatch.setattr("frazil_cli.patience.FIRST_PAUSE_SECONDS", 10.0)
        wanted = Wanted(rows[0].key, rows[0].sha256, rows[0].size)
        with ThreadPoolExecutor(1) as pool:
            fetching = pool.submit(fetch_one, open_store(config), PREFIX, wanted, tmp_path)
            server.start()  # in this thread: a server ends with the thread that started it
            assert fetching.result().fetched
        server.kill()
        monkeypatch.setattr("frazil_cli.patience.FIRST_PAUSE_SECONDS", 0.01)
        with pytest.raises(TryAgain, match="answer") as caught:
            fetch_all(open_store(config), PREFIX, [Wanted("images/x.png")], tmp_path, threads=1, on_done=lambda _: None)
        assert code_of(caught.value) == 75
    finally:
        server.stop()
