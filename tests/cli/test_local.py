"""The supervisor: what `decide` says, and that real processes start again, end in order and never outlive us."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from frazil_cli.local import Component, Death, Finished, GivenUp, StartAt, Supervisor, decide


def component(**changes) -> Component:
    return Component(**{"name": "x", "arguments": ("true",), "env": {}, "log": None, **changes})


def death(code=1, lived=0.1, at=100.0) -> Death:
    return Death(at=at, code=code, lived=lived)


@pytest.mark.parametrize(
    ("sentence", "process", "deaths", "decision"),
    [
        ("what is meant to end has ended", component(one_shot=True), [death(0)], Finished()),
        ("what must run does not end, even with 0", component(restarts=0), [death(0)], GivenUp(0)),
        ("the first restart comes soon", component(restarts=3), [death()], StartAt(100.2)),
        ("the pause doubles", component(restarts=3), [death(), death()], StartAt(100.4)),
        ("the pause has a limit", component(restarts=99), [death()] * 20, StartAt(105.0)),
        ("restarts are bounded", component(restarts=2), [death()] * 3, GivenUp(1)),
        (
            "a long life wipes the slate clean",
            component(restarts=1),
            [death(), death(lived=99), death()],
            StartAt(100.2),
        ),
        ("bad input is final", component(restarts=9, one_shot=True), [death(65)], GivenUp(65)),
        ("bad configuration is final", component(restarts=9, one_shot=True), [death(78)], GivenUp(78)),
        ("try again is tried again", component(restarts=1, one_shot=True), [death(75)], StartAt(100.2)),
        ("a signal is tried again", component(restarts=1, one_shot=True), [death(-9)], StartAt(100.2)),
        (
            "but not for ever, however long it lived",
            component(restarts=1, one_shot=True),
            [death(-9, 99)] * 2,
            GivenUp(-9),
        ),
    ],
)
def test_what_happens_to_a_process_that_ended(sentence, process, deaths, decision):
    found = decide(process, deaths)
    if isinstance(decision, StartAt):
        assert isinstance(found, StartAt), sentence
        assert found.at == pytest.approx(decision.at), sentence
    else:
        assert found == decision, sentence


def shell(name: str, script: str, tmp_path, **more) -> Component:
    return Component(
        name=name,
        arguments=("/bin/sh", "-c", script),
        env={"PATH": os.environ["PATH"]},
        log=tmp_path / f"{name}.log",
        **more,
    )


def until(condition, supervisor, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        supervisor.poll()
        time.sleep(0.01)


def test_a_killed_process_is_started_again_and_keeps_its_log(tmp_path):
    supervisor = Supervisor()
    supervisor.start(shell("server", "echo born; exec sleep 60", tmp_path, restarts=3))
    until(lambda: (tmp_path / "server.log").read_text().count("born") == 1, supervisor)
    supervisor._lives["server"].process.kill()
    until(lambda: (tmp_path / "server.log").read_text().count("born") == 2, supervisor)
    assert supervisor.alive("server")
    supervisor.stop(["server"], seconds=5)
    assert not supervisor.running("server")


def test_a_process_that_ignores_sigterm_is_killed_with_its_children(tmp_path):
    supervisor = Supervisor()
    script = "trap '' TERM; sleep 61 & echo $! > child; while true; do sleep 1; done"
    supervisor.start(shell("deaf", f"cd {tmp_path}; {script}", tmp_path))
    until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text().strip(), supervisor)
    supervisor.stop(["deaf"], seconds=0.5)
    child = int((tmp_path / "child").read_text())
    until(lambda: not running(child), supervisor)


def test_a_program_that_is_not_there_is_a_configuration_error(tmp_path):
    from frazil_jobs.base.exits import BadConfiguration

    with pytest.raises(BadConfiguration, match="can't be started"):
        Supervisor().start(Component(name="no", arguments=("/no/such/program",), env={}, log=tmp_path / "log"))


def test_processes_end_when_the_one_that_supervises_them_is_killed(tmp_path):
    program = textwrap.dedent(
        f"""
        import pathlib, time
        from frazil_cli.local import Component, Supervisor
        supervisor = Supervisor()
        for name in ("a", "b"):
            log = pathlib.Path({str(tmp_path)!r}) / name
            supervisor.start(Component(name=name, arguments=("/bin/sleep", "60"), env={{}}, log=log))
        print(*(life.process.pid for life in supervisor._lives.values()), flush=True)
        time.sleep(60)
        """
    )
    leader = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    pids = [int(pid) for pid in leader.stdout.readline().split()]
    assert len(pids) == 2
    assert all(running(pid) for pid in pids)
    leader.send_signal(signal.SIGKILL)
    leader.wait()
    end = time.monotonic() + 20
    while any(running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(running(pid) for pid in pids)


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
