"""`frazil run`, end to end: real ranks, real Redis, real S3."""

import json

import pytest
from frazil_command import job_of

TWO = ("--ranks", "2", "--threads", "1")


def test_a_run_on_two_ranks_stores_every_image_and_says_where(undisturbed):
    result = undisturbed.result
    assert result["images"] == result["generated"] == len(undisturbed.images) == 16
    assert (result["ranks"], result["replicas"], result["mode"]) == (2, 1, "Exact")
    folder = undisturbed.frazil.folder
    assert (folder / result["gallery"]).is_file()
    assert (folder / result["manifest"]).is_file()
    manifest = json.loads((folder / result["manifest"]).read_text())
    assert {row["key"].removeprefix("images/"): row["sha256"] for row in manifest["outputs"]} == undisturbed.images


def test_nothing_is_left_of_a_run_but_logs(undisturbed):
    assert undisturbed.frazil.mine() == []
    assert list(undisturbed.frazil.folder.glob("work/*/replica-*")) == []


def test_a_second_run_makes_nothing_again(undisturbed):
    frazil = undisturbed.frazil
    paths = [path for path in frazil.store.rglob("images/*.png") if ".frazil" not in path.parts]
    before = {path: path.stat().st_mtime_ns for path in paths}
    ended = frazil("run", "job.yaml", "--store", frazil.store, *TWO, "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["generated"] == 0
    assert {path: path.stat().st_mtime_ns for path in paths} == before


def test_the_images_are_read_back_verified(undisturbed, tmp_path):
    frazil = undisturbed.frazil
    ended = frazil("fetch", "tiny", "--store", frazil.store, "--to", tmp_path / "here", "--json")
    assert ended.returncode == 0, ended.stderr
    fetched = json.loads(ended.stdout)
    assert fetched["complete"]
    assert sorted(path.name for path in (tmp_path / "here" / "images").iterdir()) == sorted(undisturbed.images)


@pytest.mark.slow
def test_one_rank_into_a_folder_and_into_s3_gives_the_same_bytes(frazil, tiny_model, s3_server):
    job = frazil.write_job(job_of(tiny_model))
    one = ("--ranks", "1", "--threads", "1")
    first = frazil("run", job, "--store", frazil.store, *one)
    assert first.returncode == 0, first.stderr + frazil.logs()
    config = s3_server.config(s3_server.bucket("one-rank"), "results")
    frazil.env = {
        "FRAZIL_S3_ACCESS_KEY": config.access_key,
        "FRAZIL_S3_SECRET_KEY": config.secret_key.get_secret_value(),
    }
    second = frazil("run", job, "--store", config.uri, "--endpoint", config.endpoint, *one)
    assert second.returncode == 0, second.stderr + frazil.logs()
    assert frazil.stored() == frazil.stored(config)
    assert len(frazil.stored()) == 16


@pytest.mark.slow
def test_two_replicas_make_the_same_images_as_one(frazil, tiny_model, undisturbed):
    job = frazil.write_job(job_of(tiny_model))
    ended = frazil("run", job, "--store", frazil.store, *TWO, "--replicas", "2", "--json")
    assert ended.returncode == 0, ended.stderr + frazil.logs()
    assert json.loads(ended.stdout)["replicas"] == 2
    assert frazil.stored() == undisturbed.images
