"""The first process of a container answers SIGTERM before its module does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from frazil_jobs.base import parent
from frazil_jobs.base.exits import CONFIG, TEMPFAIL

IMPORTS = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
WORKS = """import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(*sys.argv[1:], flush=True)
time.sleep(60)
"""
NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child"]


def started(tmp_path, body: str, *before: str) -> subprocess.Popen[bytes]:
    (tmp_path / "slow.py").write_text(body)
    command = [*before, sys.executable, "-m", "frazil_jobs.base.entry", "slow", "an argument"]
    return parent.start(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, stdout=subprocess.PIPE)


def stopped(process: subprocess.Popen[bytes], pid: int) -> int:
    os.kill(pid, signal.SIGTERM)
    return process.wait(timeout=30)


@pytest.mark.parametrize(("body", "code"), [(IMPORTS, TEMPFAIL), (WORKS, 7)], ids=["imports", "works"])
def test_a_signal_ends_it_before_its_module_answers_and_then_as_the_module_says(tmp_path, body, code):
    process = started(tmp_path, body)
    assert process.stdout.readline().decode().strip() in ("importing", "an argument")
    assert stopped(process, process.pid) == code


def test_as_process_1_of_a_namespace_too(tmp_path):
    """Where the kernel ignores a signal that has no handler."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make a namespace for process ids")
    process = started(tmp_path, IMPORTS, *NAMESPACE)
    process.stdout.readline()
    (child,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    assert stopped(process, child) == TEMPFAIL


def test_without_a_module_it_says_how_it_is_called():
    ended = subprocess.run(
        [sys.executable, "-m", "frazil_jobs.base.entry"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == CONFIG
    assert "MODULE" in ended.stderr
