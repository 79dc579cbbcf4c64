"""The operator as a whole: wait for the CRDs and the lease, then watch, reconcile, ask and tell, until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any, Final

import kopf
import redis.asyncio

from frazil_jobs.api.base import API_VERSION, GROUP
from frazil_jobs.base import log as logs
from frazil_jobs.base.exits import FAILED, OK
from frazil_jobs.base.log import get_logger
from frazil_jobs.outputs.celery_app import make_app
from frazil_operator.engine.control import Control
from frazil_operator.engine.handlers import KINDS, register
from frazil_operator.engine.metrics import Metrics
from frazil_operator.engine.probes import Health, serve
from frazil_operator.engine.progress import ProgressBoard
from frazil_operator.engine.queue import WorkQueue
from frazil_operator.engine.state import FINAL, State
from frazil_operator.engine.watchdog import Watchdog
from frazil_operator.engine.watching import watch
from frazil_operator.engine.worker import Known, Worker
from frazil_operator.kube.client import Kube, KubeError
from frazil_operator.kube.discovery import Served, served
from frazil_operator.kube.lease import Lease
from frazil_operator.reconcile.plan import Key
from frazil_operator.settings import Settings

log = get_logger(__name__)
_CRD_SECONDS: Final = 5.0
_DISCOVERY_SECONDS: Final = 60.0
_REDIS_SECONDS: Final = 5.0
_COUNT_SECONDS: Final = 15.0
_SPREAD: Final = 0.8
"""Of the time between two looks at a job: how much of it the looks at all jobs are spread over."""


class Operator:
    """One replica."""

    def __init__(self, settings: Settings, *, broker: str, port: int) -> None:
        self._settings = settings
        self._broker = broker
        self._port = port
        self._stop = asyncio.Event()
        self._metrics = Metrics()
        self._code = OK

    async def run(self) -> int:
        """Run until SIGTERM, SIGINT or the loss of the lease; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        settings = self._settings
        kube = await Kube.connect(count=self._metrics.wrote)
        identity = f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{os.getpid()}"
        lease = Lease(
            kube,
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            identity=identity,
            seconds=settings.lease_seconds,
        )
        queue: WorkQueue[Key] = WorkQueue()
        health = Health(settings.lease_seconds * 2.0, lambda: lease.renewed_at, queue)
        runner = await serve(health, self._metrics, port=self._port)
        try:
            if await self._unless_stopped(self._wait_for_crds(kube)) and await self._unless_stopped(lease.acquire()):
                health.leading = True
                self._metrics.leader.set(1)
                log.info("this replica acts", identity=identity)
                await self._lead(kube, lease, queue, health)
        finally:
            if health.leading:
                await lease.release()
            await runner.cleanup()
            await kube.close()
        return self._code

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do the work unless told to stop first; whether it was done."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not doing.done():
            doing.cancel()
            return False
        doing.result()
        return True

    async def _wait_for_crds(self, kube: Kube) -> None:
        while True:
            try:
                if all([await kube.serves(API_VERSION, kind) for kind in ("GenerationJob", "TrainingJob")]):
                    return
                log.warning("the CRDs are not installed yet", group=GROUP)
            except KubeError as error:
                log.warning("the API server does not answer", error=str(error))
            await asyncio.sleep(_CRD_SECONDS)

    async def _lead(self, kube: Kube, lease: Lease, queue: WorkQueue[Key], health: Health) -> None:
        settings, metrics, state = self._settings, self._metrics, State()
        client = redis.asyncio.Redis.from_url(
            self._broker, socket_timeout=_REDIS_SECONDS, socket_connect_timeout=_REDIS_SECONDS
        )

        def look_at(uid: str) -> None:
            if (key := state.key_of(uid)) is not None:
                queue.add(key)

        control = Control(make_app(self._broker), client, answered=look_at, metrics=metrics)
        board = ProgressBoard(
            client,
            seconds=settings.progress_seconds,
            at_work=state.at_work,
            changed=look_at,
            metrics=metrics,
        )
        begun = await served(kube)
        known = Known(kube, state, queue, control, board, settings, metrics, gang=begun.gang)
        watchdog = Watchdog(
            kube,
            state,
            watched={**dict.fromkeys(KINDS.values(), API_VERSION), "Job": "batch/v1", "Pod": "v1"}
            | ({"PodGroup": begun.podgroups} if begun.podgroups else {})
            | ({"Workload": begun.workloads} if begun.workloads else {}),
            namespaces=settings.namespaces,
            changed=queue.add,
            seconds=settings.resync_seconds,
        )
        registry = kopf.OperatorRegistry()
        register(
            registry,
            state=state,
            queue=queue,
            heard=watchdog.heard,
            gone=control.forget,
            podgroups=begun.podgroups,
            workloads=begun.workloads,
        )
        metrics.gang_provider.labels(provider=begun.gang.provider).set(1)
        log.info("gang scheduling", provider=begun.gang.provider)
        watching_stop = asyncio.Event()
        caught_up = asyncio.create_task(watchdog.caught_up(), name="catching up")
        parts = {
            "watching": watch(registry, namespaces=settings.namespaces, stop=watching_stop),
            "asking": control.poll(),
            "progress": board.run(),
            "discovery": until_served_otherwise(kube, begun),
            "resync": self._resync(known),
            "counting": self._count(known),
            "lease": lease.hold(),
            "watchdog": watchdog.run(),
            **{f"worker {number}": self._work(known, caught_up, health) for number in range(settings.workers)},
        }
        tasks = {asyncio.create_task(part, name=name) for name, part in parts.items()}
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            error = task.exception() if not task.cancelled() else None
            if task.get_name() == "watching" and error is None:
                log.info("told to stop")  # kopf hears SIGTERM in our place
                continue
            log.error(
                "a part of the operator has ended; the process ends with it", part=task.get_name(), error=str(error)
            )
            health.broken.append(task.get_name())
            self._code = FAILED
        watching_stop.set()
        for task in tasks:
            if task.get_name() != "watching":
                task.cancel()
        await asyncio.wait(tasks, timeout=10)
        await client.aclose()

    @staticmethod
    async def _work(known: Known, caught_up: asyncio.Task[None], health: Health) -> None:
        """Nothing is decided on half of what there is."""
        await caught_up
        health.working = True
        await Worker(known).run()

    @staticmethod
    async def _resync(known: Known) -> None:
        """Look at every job once in a while, spread over the time."""
        seconds = known.settings.resync_seconds
        while True:
            started = time.monotonic()
            keys = known.state.all_keys()
            for key in keys:
                if known.state.job(key) is not None and known.state.phase(key) not in FINAL:
                    known.queue.add(key)
                    await asyncio.sleep(_SPREAD * seconds / len(keys))
            await asyncio.sleep(max(0.05, seconds - (time.monotonic() - started)))

    @staticmethod
    async def _count(known: Known) -> None:
        """Keep the gauge of jobs by kind and phase."""
        while True:
            counts = Counter((key.kind, known.state.phase(key) or "New") for key in known.state.all_keys())
            known.metrics.jobs.clear()
            for (kind, phase), count in counts.items():
                known.metrics.jobs.labels(kind=kind, phase=phase).set(count)
            await asyncio.sleep(_COUNT_SECONDS)


async def until_served_otherwise(kube: Kube, begun: Served) -> None:
    """Return when something that is watched has been removed, or something that should be was installed: watches are begun
    once. An API server that restarts may leave out a group for a moment, so a change counts when it's answered twice.
    """
    last = begun
    while True:
        await asyncio.sleep(_DISCOVERY_SECONDS)
        try:
            found = await served(kube)
        except KubeError as error:
            log.warning("discovery failed", error=str(error))
            found = begun
        if found == last != begun:
            log.warning(
                "a gang provider or Kueue was installed or removed; the operator begins anew to watch what there is",
                provider=found.gang.provider,
                provider_before=begun.gang.provider,
                workloads=found.workloads,
                workloads_before=begun.workloads,
            )
            return
        last = found


def run(settings: Settings, *, broker: str, port: int) -> int:
    """Run the operator in this process; the exit code."""
    logs.configure("operator")
    return asyncio.run(_run(settings, broker=broker, port=port))


async def _run(settings: Settings, *, broker: str, port: int) -> int:
    return await Operator(settings, broker=broker, port=port).run()
