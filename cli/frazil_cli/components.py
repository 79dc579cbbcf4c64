"""The processes of one replica, as data: what each is called, what it runs, and what its environment may hold.

`fetch` and `upload` hold the store's credentials. The ranks hold none: their environment is an allowlist.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from frazil_cli.local import Component
from frazil_cli.machine import VISIBLE_VARIABLE
from frazil_cli.prepare import Prepared, environment_for
from frazil_cli.preparetraining import PreparedTraining
from frazil_cli.workspace import Workspace
from frazil_jobs.launching.settings import REPLAY_VARIABLE, allowed
from frazil_jobs.outputs.celery_app import CONTROL_QUEUE, upload_queue
from frazil_jobs.stores import StoreConfig

AnyPrepared = Prepared | PreparedTraining
FETCH = "fetch"
COMPUTE = "compute"
UPLOAD = "upload"
CONTROL = "control"
SERVER_RESTARTS = 8
"""Of Redis and of an upload worker, in a row."""
_FOR_EVER = 10**7
"""Seconds that the ranks' launcher waits for the store: the run itself decides when to give up."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the processes of one replica share."""

    prepared: AnyPrepared
    store: StoreConfig
    redis_url: str
    space: Workspace
    replica: int
    spool: Path
    grace: float
    attempt: int | None = None
    """Of a TrainingJob."""


def name_of(kind: str, replica: int) -> str:
    """What a process is called: `upload-0`."""
    return f"{kind}-{replica}"


def kind_of(name: str) -> str:
    """`upload` of `upload-0`."""
    return name.rpartition("-")[0] or name


def queue_of(prepared: AnyPrepared, replica: int) -> str:
    """The Celery queue of one replica of one run."""
    return upload_queue(f"{prepared.job.metadata.name}-{prepared.uid[:8]}-{replica}")


def control_queue_of(prepared: AnyPrepared) -> str:
    """The Celery queue on which this run asks for its manifest."""
    return f"{CONTROL_QUEUE}.{prepared.job.metadata.name}-{prepared.uid[:8]}"


def fetch(context: Context, environment: Mapping[str, str] = os.environ) -> Component:
    """Brings model, prompts and pictures, and the list of what is stored."""
    prepared = context.prepared
    return Component(
        name=name_of(FETCH, context.replica),
        arguments=(sys.executable, "-m", "frazil_jobs.inputs.fetch"),
        env={
            **_of_job(context, environment),
            "FRAZIL_SPOOL": str(context.spool),
            "FRAZIL_JOB_FILE": str(prepared.file.absolute()),
            **prepared.fetch_env(context.replica),
            **({"FRAZIL_ATTEMPT": str(context.attempt)} if context.attempt is not None else {}),
        },
        log=context.space.log(name_of(FETCH, context.replica)),
        one_shot=True,
    )


def compute(context: Context, *, retries: int, environment: Mapping[str, str] = os.environ) -> Component:
    """The launcher of the ranks."""
    layout = context.prepared.layout
    gpus = layout.gpus_of(context.replica, context.prepared.machine)
    return Component(
        name=name_of(COMPUTE, context.replica),
        arguments=(sys.executable, "-m", context.prepared.module),
        env={
            **allowed(environment),
            **({VISIBLE_VARIABLE: ",".join(gpus)} if gpus else {}),
            **({REPLAY_VARIABLE: environment[REPLAY_VARIABLE]} if environment.get(REPLAY_VARIABLE) else {}),
            "FRAZIL_LOG": "json",
            "FRAZIL_SPOOL": str(context.spool),
            "FRAZIL_RANKS": str(layout.ranks),
            "FRAZIL_DEVICE": layout.device,
            "FRAZIL_THREADS": str(layout.threads),
            "FRAZIL_GRACE_SECONDS": f"{context.grace:g}",
            "FRAZIL_DRAIN_SECONDS": str(_FOR_EVER),
        },
        log=context.space.log(name_of(COMPUTE, context.replica)),
        restarts=retries,
        one_shot=True,
    )


def upload(context: Context, *, spool: Path, environment: Mapping[str, str] = os.environ) -> Component:
    """The Celery worker that stores what is in a spool."""
    return Component(
        name=name_of(UPLOAD, context.replica),
        arguments=(sys.executable, "-m", "frazil_jobs.outputs.upload"),
        env={
            **_of_job(context, environment),
            "FRAZIL_SPOOL": str(spool),
            "FRAZIL_QUEUE": queue_of(context.prepared, context.replica),
            "FRAZIL_REDIS_URL": context.redis_url,
            "FRAZIL_DRAIN_SECONDS": "1",  # the run itself waits before it ends a worker
        },
        log=context.space.log(name_of(UPLOAD, context.replica)),
        restarts=SERVER_RESTARTS,
    )


def control(context: Context, environment: Mapping[str, str] = os.environ) -> Component:
    """The Celery worker that recounts the results and writes the manifest."""
    return Component(
        name=CONTROL,
        arguments=(sys.executable, "-m", "frazil_jobs.control"),
        env={
            **_of_job(context, environment),
            "FRAZIL_QUEUE": control_queue_of(context.prepared),
            "FRAZIL_REDIS_URL": context.redis_url,
            "FRAZIL_JOB_FOLDER": str(context.prepared.base_dir),
        },
        log=context.space.log(CONTROL),
        restarts=SERVER_RESTARTS,
    )


def _of_job(context: Context, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        **environment_for(context.store, environment),
        "FRAZIL_LOG": "json",
        "FRAZIL_PREFIX": context.prepared.prefix,
        "FRAZIL_JOB_UID": context.prepared.uid,
    }
