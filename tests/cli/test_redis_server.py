import pytest
import redis

from frazil_cli.local import Supervisor
from frazil_cli.redis_server import prepare


@pytest.fixture
def served(tmp_path):
    supervisor = Supervisor()
    server = prepare(tmp_path / "redis")
    supervisor.start(server.component(log=tmp_path / "redis.log", restarts=5))
    assert server.wait(seconds=20)
    yield supervisor, server, tmp_path
    supervisor.kill()


def test_it_answers_only_to_those_who_know_the_password(served):
    _, server, folder = served
    assert redis.Redis.from_url(server.url).ping()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=server.port).ping()
    assert (folder / "redis" / "redis.conf").stat().st_mode & 0o077 == 0
    assert (folder / "redis").stat().st_mode & 0o077 == 0
    assert server.password not in repr(server)


def test_killed_it_comes_back_empty_under_the_same_url(served):
    import time

    supervisor, server, _ = served
    client = redis.Redis.from_url(server.url)
    client.set("a", "1")
    supervisor._lives["redis"].process.kill()
    end = time.monotonic() + 20
    while supervisor.deaths("redis") == 0 or not server.answers():
        assert time.monotonic() < end
        supervisor.poll()
        time.sleep(0.02)
    assert redis.Redis.from_url(server.url).get("a") is None
