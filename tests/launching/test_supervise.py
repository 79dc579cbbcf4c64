"""The supervision of ranks, with real processes that stand for ranks: who decides, what is told, and that all are gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from frazil_jobs.base import parent
from frazil_jobs.launching.failures import error_path
from frazil_jobs.launching.supervise import RankProcess, StopRequest, Words, supervise

WORDS = Words(
    before="stopped before the first step",
    stopping="a step is finished",
    dropped="steps are dropped",
    timeout_field="the time-out",
)
RAISES = """
import sys, time, os
from pathlib import Path
from frazil_jobs.launching.failures import failure_of
time.sleep({delay})
try:
    {raises}
except Exception as error:
    failure = failure_of(error, rank={rank})
    failure.write(Path(sys.argv[1]))
    os._exit(failure.exit_code)
"""
SLEEPS = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
ORDERLY = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print('ready', flush=True)
time.sleep(600)
"""


@pytest.fixture
def replica(tmp_path):
    """Start a process a script, and leave none behind."""
    started = []

    def start(*scripts):
        for rank, script in enumerate(scripts):
            process = parent.start(
                [sys.executable, "-c", script, tmp_path], env=dict(os.environ), stdout=subprocess.PIPE
            )
            if "print(" in script:
                process.stdout.readline()
            started.append(RankProcess(rank, process))
        return started

    yield start
    for rank in started:
        rank.process.kill()
        rank.process.wait()
        rank.process.stdout.close()


def raises(rank, statement, delay=0.0):
    return RAISES.format(rank=rank, raises=statement, delay=delay)


def watch(ranks, folder, stop=None, **seconds):
    return supervise(
        ranks, folder, stop or StopRequest(60), WORDS, **{"settle_seconds": 0.5, "term_seconds": 0.5, **seconds}
    )


def all_gone(ranks):
    return all(rank.process.poll() is not None for rank in ranks)


def test_ranks_that_end_well_end_the_replica_well(replica, tmp_path):
    verdict = watch(replica("pass", "pass"), tmp_path)
    assert (verdict.exit_code, verdict.text) == (0, "")


def test_a_rank_that_raises_takes_the_others_down_and_its_traceback_is_told(replica, tmp_path):
    ranks = replica(SLEEPS, raises(1, "[][5]"))
    verdict = watch(ranks, tmp_path)
    assert verdict.exit_code == 1
    assert verdict.text.startswith("rank 1 failed:\nTraceback")
    assert verdict.text.endswith("IndexError: list index out of range")
    assert verdict.text.count("Traceback") == 1
    assert all_gone(ranks)


@pytest.mark.parametrize(("name", "code"), [("BadInput", 65), ("TryAgain", 75), ("BadConfiguration", 78)])
def test_an_error_that_a_person_can_act_on_is_one_message_with_its_exit_code(replica, tmp_path, name, code):
    statement = f"from frazil_jobs.base import exits; raise exits.{name}('is wrong', field='spec.x', remedy='mend it')"
    verdict = watch(replica(raises(0, statement)), tmp_path)
    assert (verdict.exit_code, verdict.text) == (code, "spec.x: is wrong (mend it)")


def test_what_all_ranks_say_alike_is_said_without_a_rank(replica, tmp_path):
    statement = (
        "from frazil_jobs.base.exits import BadConfiguration; raise BadConfiguration('is wrong', field='spec.x')"
    )
    verdict = watch(replica(raises(0, statement), raises(1, statement)), tmp_path)
    assert (verdict.exit_code, verdict.text) == (78, "spec.x: is wrong")


def test_what_a_collective_raises_is_not_the_cause_even_when_it_is_seen_first(replica, tmp_path):
    lost = "raise RuntimeError('[gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:41234')"
    verdict = watch(replica(raises(0, lost), raises(1, "raise KeyError('the cause')", delay=0.2)), tmp_path)
    assert "the cause" in verdict.text
    assert "Connection closed" not in verdict.text


def test_a_rank_that_is_killed_is_named_and_can_be_tried_again(replica, tmp_path):
    lost = "raise RuntimeError('Connection closed by peer')"
    ranks = replica(raises(0, lost, delay=0.4), SLEEPS)
    threading.Timer(0.3, ranks[1].process.kill).start()
    verdict = watch(ranks, tmp_path)
    assert verdict.exit_code == 75
    assert f"rank 1 (process {ranks[1].process.pid}) was killed by SIGKILL" in verdict.text
    assert "Connection closed" not in verdict.text


def test_a_rank_that_crashes_is_a_failure(replica, tmp_path):
    verdict = watch(replica("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), tmp_path)
    assert verdict.exit_code == 1
    assert "SIGSEGV" in verdict.text


def test_when_all_lost_contact_the_first_of_them_is_told_and_it_can_be_tried_again(replica, tmp_path):
    lost = "raise RuntimeError('Timed out waiting 600000ms for recv operation to complete')"
    verdict = watch(replica(raises(0, lost, delay=0.3), raises(1, lost)), tmp_path)
    assert verdict.exit_code == 75
    assert "rank 1 lost contact" in verdict.text
    assert "longer than the time-out" in verdict.text


def test_a_rank_that_ends_without_a_word_keeps_its_code(replica, tmp_path):
    verdict = watch(replica("import os; os._exit(3)"), tmp_path)
    assert (verdict.exit_code, "ended with code 3" in verdict.text) == (3, True)


def test_a_rank_deaf_to_sigterm_is_killed(replica, tmp_path):
    ranks = replica(DEAF, raises(1, "raise KeyError('x')"))
    began = time.monotonic()
    watch(ranks, tmp_path)
    assert all_gone(ranks)
    assert ranks[0].process.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 30


def test_a_request_to_stop_is_forwarded_and_ranks_end_in_order(replica, tmp_path):
    stop = StopRequest(60)
    threading.Timer(0.2, stop.request).start()
    ranks = replica(ORDERLY, ORDERLY)
    verdict = watch(ranks, tmp_path, stop)
    assert verdict.exit_code == 75
    assert [rank.process.returncode for rank in ranks] == [75, 75]


def test_a_rank_that_still_writes_when_the_others_have_stopped_is_not_taken_down(replica, tmp_path):
    stop = StopRequest(60)
    threading.Timer(0.1, stop.request).start()
    writes = ORDERLY.replace("sys.exit(75)", "(time.sleep(2), sys.exit(75))")
    ranks = replica(writes, ORDERLY)
    verdict = watch(ranks, tmp_path, stop)
    assert verdict.exit_code == 75
    assert [rank.process.returncode for rank in ranks] == [75, 75]


def test_a_rank_stopped_before_it_answers_signals_is_no_failure(replica, tmp_path):
    stop = StopRequest(60)
    threading.Timer(0.2, stop.request).start()
    verdict = watch(replica(SLEEPS, SLEEPS), tmp_path, stop)
    assert (verdict.exit_code, verdict.text) == (75, "stopped before the first step")


def test_what_is_in_hand_is_dropped_when_the_grace_period_is_over(replica, tmp_path):
    stop = StopRequest(0.3)
    threading.Timer(0.1, stop.request).start()
    ranks = replica(DEAF)
    verdict = watch(ranks, tmp_path, stop)
    assert verdict.exit_code == 75
    assert "dropped" in verdict.text
    assert all_gone(ranks)


def test_an_exception_of_the_watcher_leaves_no_rank_behind(replica, tmp_path):
    error_path(tmp_path, 1).write_text(json.dumps({"nonsense": 1}))
    ranks = replica(SLEEPS, "import os; os._exit(1)")
    with pytest.raises(TypeError):
        watch(ranks, tmp_path)
    assert all_gone(ranks)
