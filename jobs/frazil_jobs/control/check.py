"""`python -m frazil_jobs.control.check`: what `helm test` runs. Asks every part of an installation for something real.

Environment: FRAZIL_OPERATOR_URL, FRAZIL_CHECK_NAMESPACE and FRAZIL_CHECK_DESTINATION (one that the namespace may use), and
what `frazil_jobs.control` reads.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Final

import redis
from celery.exceptions import CeleryError
from celery.exceptions import TimeoutError as NoAnswer

from frazil_jobs.api.base import API_VERSION
from frazil_jobs.base.exits import FAILED, OK, FrazilError
from frazil_jobs.control.destinations import load
from frazil_jobs.outputs.celery_app import CONTROL_QUEUE, INSPECT, make_app, redis_url_of
from frazil_jobs.stores import open_store

_SECONDS: Final = 30.0
_FAILURES: Final = (FrazilError, redis.RedisError, CeleryError, OSError, ValueError)


def operator() -> str:
    """The operator answers, and one replica acts."""
    with urllib.request.urlopen(f"{os.environ['FRAZIL_OPERATOR_URL']}/readyz", timeout=10) as answer:  # noqa: S310
        return str(answer.read().decode())


def broker() -> str:
    """Redis takes the control plane's user."""
    client = redis.Redis.from_url(redis_url_of(os.environ), socket_timeout=10, socket_connect_timeout=10)
    client.ping()
    return "answers"


def worker() -> str:
    """The worker Deployment inspects the prompts of a job."""
    job = {
        "apiVersion": API_VERSION,
        "kind": "GenerationJob",
        "metadata": {"name": "helm-test", "namespace": os.environ["FRAZIL_CHECK_NAMESPACE"]},
        "spec": {
            "model": {"uri": "hf://frazil/none"},
            "prompts": {"inline": ["one", "two"]},
            "output": {"destination": os.environ["FRAZIL_CHECK_DESTINATION"]},
        },
    }
    app = make_app(redis_url_of(os.environ))
    asked = app.send_task(INSPECT, kwargs={"job": job}, queue=CONTROL_QUEUE, ignore_result=False)
    try:
        answer = asked.get(timeout=_SECONDS)
    except NoAnswer:
        raise ValueError(f"no worker has answered within {_SECONDS:.0f} s") from None
    if answer.get("prompts", {}).get("count") != 2:
        raise ValueError(f"the worker has answered {answer}")
    return "inspects prompts"


def stores() -> str:
    """Every destination can be listed."""
    found = load() or ()
    for destination in found:
        store = open_store(destination.store)
        next(iter(store.list("")), None)
    return f"{len(found)} reachable"


CHECKS: Final[dict[str, Callable[[], str]]] = {
    "operator": operator,
    "Redis": broker,
    "worker": worker,
    "destinations": stores,
}


def main() -> int:
    """Run all; the exit code."""
    code = OK
    for name, check in CHECKS.items():
        try:
            print(f"ok    {name}: {check()}")
        except _FAILURES as error:
            print(f"FAIL  {name}: {error}")
            code = FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
