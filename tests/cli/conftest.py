"""Real runs of the `frazil` command on a tiny pipeline."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from frazil_command import Frazil, Reference, job_of


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PixArt pipeline with random weights."""
    from tiny_pipelines import save

    folder = tmp_path_factory.mktemp("model") / "pixart"
    save("pixart", folder)
    return folder


@pytest.fixture
def frazil(tmp_path: Path) -> Iterator[Frazil]:
    command = Frazil(tmp_path)
    yield command
    for pid in command.mine():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The job on two ranks of one thread, into a folder, with nothing in its way."""
    command = Frazil(tmp_path_factory.mktemp("undisturbed"))
    job = command.write_job(job_of(tiny_model))
    ended = command("run", job, "--store", command.store, "--ranks", "2", "--threads", "1", "--json")
    assert ended.returncode == 0, ended.stderr + command.logs()
    return Reference(json.loads(ended.stdout), command.stored(), command)


@pytest.fixture
def own_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """An S3 server to kill."""
    from servers import RealS3

    server = RealS3(tmp_path_factory.mktemp("own-s3"))
    server.start()
    yield server
    server.stop()
