"""Real servers for the whole run, and what every test needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is slow, and that is no finding: nothing in the tests is judged by the clock.
settings.register_profile("frazil", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("frazil")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A Redis that stays up; tests that kill one make their own."""
    from servers import RealRedis

    server = RealRedis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """An S3 server that stays up."""
    from servers import RealS3

    server = RealS3(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def folder_store(tmp_path: Path) -> object:
    """An empty store in a folder."""
    from frazil_jobs.stores import StoreConfig, open_store

    return open_store(StoreConfig(uri=f"file://{tmp_path}/store"))
