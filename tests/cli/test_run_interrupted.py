"""What a run survives, and what the next run of the same job makes of what it doesn't: the same bytes, each image once."""

import os
import signal

import pytest
from frazil_command import REDIS, UPLOAD, WORKER, job_of, wait_until
from redis import Redis

TWO = ("--ranks", "2", "--threads", "1")


def rerun(frazil, job, undisturbed, *store):
    """The same command again: finishes the rest, and leaves what an undisturbed run leaves."""
    again = frazil("run", job, *store, *TWO)
    assert again.returncode == 0, again.stderr + frazil.logs()
    assert frazil.mine() == []


def still_at_work(frazil, config=None):
    """What is killed now is killed in the middle of the run."""
    assert 0 < len(frazil.stored(config)) < 16


def kill(pids):
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_ctrl_c_ends_all_in_order_and_the_same_command_finishes_the_rest(frazil, tiny_model, undisturbed):
    job = frazil.write_job(job_of(tiny_model))
    process = frazil.start("run", job, "--store", frazil.store, *TWO)
    frazil.wait_for_images(2, process)
    process.send_signal(signal.SIGINT)
    ended = frazil.ended(process)
    assert ended.returncode == 75, ended.stderr
    assert "run the same command to finish the rest" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert frazil.mine() == []
    made = frazil.stored()
    assert 0 < len(made) < 16
    assert made.items() <= undisturbed.images.items()
    rerun(frazil, job, undisturbed, "--store", frazil.store)
    assert frazil.stored() == undisturbed.images


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(frazil, tiny_model):
    job = frazil.write_job(job_of(tiny_model, **{"spec.sampling.steps": 200}))
    process = frazil.start("run", job, "--store", frazil.store, *TWO, "--grace", "120")
    wait_until(lambda: len(frazil.mine(WORKER)) == 2, "two ranks")
    process.send_signal(signal.SIGINT)
    wait_until(lambda: "asked to stop" in frazil.logs(), "the launcher to hear of it")
    process.send_signal(signal.SIGINT)
    ended = frazil.ended(process, timeout=30)
    assert ended.returncode == 75, ended.stderr
    assert frazil.mine() == []


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_the_next_run_finishes_the_rest(frazil, tiny_model, undisturbed):
    job = frazil.write_job(job_of(tiny_model))
    process = frazil.start("run", job, "--store", frazil.store, *TWO)
    frazil.wait_for_images(2, process)
    still_at_work(frazil)
    kill(frazil.mine(WORKER)[:1])
    ended = frazil.ended(process)
    assert ended.returncode == 75, ended.stderr
    assert "was killed by SIGKILL" in ended.stderr
    assert "run the same command to finish the rest" in ended.stderr
    assert frazil.mine() == []
    rerun(frazil, job, undisturbed, "--store", frazil.store)
    assert frazil.stored() == undisturbed.images


@pytest.mark.slow
def test_a_killed_rank_is_started_again_when_asked_for(frazil, tiny_model, undisturbed):
    job = frazil.write_job(job_of(tiny_model))
    process = frazil.start("run", job, "--store", frazil.store, *TWO, "--retries", "1")
    frazil.wait_for_images(2, process)
    still_at_work(frazil)
    kill(frazil.mine(WORKER)[1:])
    ended = frazil.ended(process)
    assert ended.returncode == 0, ended.stderr + frazil.logs()
    assert frazil.stored() == undisturbed.images


@pytest.mark.slow
def test_a_killed_worker_a_killed_redis_and_an_emptied_one_are_caught_up(frazil, tiny_model, undisturbed):
    job = frazil.write_job(job_of(tiny_model))
    process = frazil.start("run", job, "--store", frazil.store, *TWO)
    frazil.wait_for_images(1, process)
    kill(frazil.mine(UPLOAD))
    frazil.wait_for_images(3, process)
    embedded(frazil).flushall()
    frazil.wait_for_images(5, process)
    still_at_work(frazil)
    kill(frazil.mine(REDIS))
    ended = frazil.ended(process)
    assert ended.returncode == 0, ended.stderr + frazil.logs()
    assert frazil.stored() == undisturbed.images
    assert frazil.mine() == []


def embedded(frazil) -> Redis:
    """A client of the run's own Redis, with the password from its private file."""
    (configuration,) = frazil.folder.glob("work/*/redis/redis.conf")
    values = dict(line.split(maxsplit=1) for line in configuration.read_text().splitlines() if line)
    return Redis(port=int(values["port"]), password=values["requirepass"], socket_timeout=10)


@pytest.mark.slow
def test_a_killed_s3_server_is_waited_for_and_caught_up(frazil, tiny_model, undisturbed, own_s3):
    config = own_s3.config(own_s3.bucket("killed"), "results")
    frazil.env = {
        "FRAZIL_S3_ACCESS_KEY": config.access_key,
        "FRAZIL_S3_SECRET_KEY": config.secret_key.get_secret_value(),
    }
    job = frazil.write_job(job_of(tiny_model))
    process = frazil.start("run", job, "--store", config.uri, "--endpoint", config.endpoint, *TWO)
    frazil.wait_for_images(2, process, config)
    still_at_work(frazil, config)
    own_s3.kill()
    wait_until(lambda: "wait in the spool" in frazil.said(process), "the display to say it")
    own_s3.start()
    ended = frazil.ended(process)
    assert ended.returncode == 0, ended.stderr + frazil.logs()
    assert frazil.stored(config) == undisturbed.images


@pytest.mark.slow
def test_a_store_that_stays_away_ends_the_run_and_what_was_made_is_stored_by_the_next(
    frazil, tiny_model, undisturbed, own_s3
):
    config = own_s3.config(own_s3.bucket("away"), "results")
    frazil.env = {
        "FRAZIL_S3_ACCESS_KEY": config.access_key,
        "FRAZIL_S3_SECRET_KEY": config.secret_key.get_secret_value(),
    }
    job = frazil.write_job(job_of(tiny_model))
    store = ("--store", config.uri, "--endpoint", config.endpoint)
    process = frazil.start("run", job, *store, *TWO, "--store-timeout", "20")
    frazil.wait_for_images(2, process, config)
    still_at_work(frazil, config)
    own_s3.kill()
    ended = frazil.ended(process)
    assert ended.returncode == 75, ended.stderr
    assert "run the same command" in ended.stderr
    waiting = list(frazil.folder.glob("work/*/replica-0/spool/payload/*"))
    assert waiting, "what was made is kept"
    own_s3.start()
    again = frazil("run", job, *store, *TWO)
    assert again.returncode == 0, again.stderr + frazil.logs()
    assert "an earlier run left" in again.stderr
    assert frazil.stored(config) == undisturbed.images


@pytest.mark.slow
def test_a_killed_frazil_run_leaves_no_process_and_the_next_one_finishes(frazil, tiny_model, undisturbed):
    job = frazil.write_job(job_of(tiny_model))
    process = frazil.start("run", job, "--store", frazil.store, *TWO)
    frazil.wait_for_images(2, process)
    still_at_work(frazil)
    kinds = {name: len(frazil.mine(name)) for name in (WORKER, UPLOAD, REDIS)}
    assert kinds == {WORKER: 2, UPLOAD: 1, REDIS: 1}
    process.kill()
    process.wait()
    wait_until(lambda: frazil.mine() == [], "all processes to end", seconds=30)
    rerun(frazil, job, undisturbed, "--store", frazil.store)
    assert frazil.stored() == undisturbed.images


@pytest.mark.slow
def test_two_runs_of_one_job_do_not_work_at_once(frazil, tiny_model):
    job = frazil.write_job(job_of(tiny_model))
    process = frazil.start("run", job, "--store", frazil.store, *TWO)
    wait_until(lambda: bool(frazil.mine(REDIS)), "the first run")
    second = frazil("run", job, "--store", frazil.store, *TWO)
    assert second.returncode == 75
    assert f"by process {process.pid}" in second.stderr
    process.send_signal(signal.SIGTERM)
    assert frazil.ended(process).returncode == 75


@pytest.mark.slow
def test_the_ranks_hold_no_credential_and_no_address_of_a_store_or_broker(frazil, tiny_model):
    frazil.env = {
        "FRAZIL_S3_ACCESS_KEY": "visible-key",
        "FRAZIL_S3_SECRET_KEY": "visible-secret",
        "HF_TOKEN": "visible-token",
    }
    job = frazil.write_job(job_of(tiny_model))
    process = frazil.start("run", job, "--store", frazil.store, *TWO)
    wait_until(lambda: len(frazil.mine(WORKER)) == 2, "two ranks")
    for pid in [*frazil.mine(WORKER), *frazil.mine("frazil_jobs.generation")]:
        with open(f"/proc/{pid}/environ") as file:
            environment = file.read()
        assert not [word for word in ("visible-", "redis://", "FRAZIL_STORE") if word in environment]
    process.send_signal(signal.SIGINT)
    frazil.ended(process)
