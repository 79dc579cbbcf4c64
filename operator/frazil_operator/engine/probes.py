"""`/healthz`, `/readyz` and `/metrics`. Health is that work gets done: not that a port answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from frazil_operator.engine.metrics import Metrics
from frazil_operator.engine.queue import WorkQueue
from frazil_operator.reconcile.plan import Key

STUCK_SECONDS: Final = 120.0
"""A reconcile that takes longer than any time-out within it, or a queue of which nothing is taken for so long."""


@dataclass
class Health:
    """What the probes look at."""

    lease_seconds: float
    renewed_at: Callable[[], float | None]
    queue: WorkQueue[Key]
    leading: bool = False
    working: bool = False
    """Whether all that there is is known, so that jobs are looked at."""
    broken: list[str] = field(default_factory=list)
    """Parts that have ended though they should not."""

    def problems(self) -> list[str]:
        """Why this process should be started again; empty when it's well."""
        found = list(self.broken)
        renewed = self.renewed_at()
        if self.leading and renewed is not None and time.monotonic() - renewed > self.lease_seconds:
            found.append(f"the lease was not renewed for {self.lease_seconds:.0f} s")
        if self.queue.oldest_seconds > STUCK_SECONDS:
            found.append(f"a reconcile has been running for {self.queue.oldest_seconds:.0f} s")
        if self.working and self.queue.stalled_seconds > STUCK_SECONDS:
            found.append(f"jobs wait, and none was looked at for {self.queue.stalled_seconds:.0f} s")
        return found


async def serve(health: Health, metrics: Metrics, *, port: int) -> web.AppRunner:
    """Start answering on a port."""

    async def healthz(_: web.Request) -> web.Response:
        problems = health.problems()
        return web.Response(text="\n".join(problems) or "ok", status=500 if problems else 200)

    async def readyz(_: web.Request) -> web.Response:
        # A replica that stands by is ready too: it would take over.
        return web.Response(text="leading" if health.leading else "standing by")

    async def text(_: web.Request) -> web.Response:
        metrics.queue_depth.set(len(health.queue))
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", text)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
