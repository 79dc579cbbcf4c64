"""The pool of Celery's workers: every message that is taken is answered for."""

from __future__ import annotations

import threading

import pytest
from servers import wait_for

from frazil_jobs.outputs.celery_app import Threads


@pytest.fixture
def pool():
    made = Threads(limit=2)
    yield made
    made.executor.shutdown()


def test_a_task_that_breaks_down_outside_of_its_body_has_failed(pool):
    answers = []

    def no_result(*_args, **_kwargs):
        raise ConnectionError("no result is stored")

    pool.on_apply(no_result, (), {}, callback=answers.append, accept_callback=lambda *_: None)
    wait_for(lambda: answers, what="the answer")
    ((failed, found, _),) = answers
    assert failed
    assert "no result is stored" in str(found.exception)
    wait_for(lambda: not pool.busy, what="the place to be free")


def test_it_is_busy_while_a_task_is_at_work(pool):
    end, answers = threading.Event(), []
    assert not pool.busy
    pool.on_apply(lambda: end.wait(30), (), {}, callback=answers.append, accept_callback=lambda *_: None)
    assert pool.busy
    end.set()
    wait_for(lambda: not pool.busy, what="the place to be free")
    wait_for(lambda: answers == [True], what="what the task returned, as it is")
