"""kopf's part: the watches, and how they are kept alive. What is heard goes to the handlers of a registry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import kopf
from kopf._core.engines.peering import Identity

from frazil_jobs.api.base import GROUP
from frazil_operator.build.labels import MANAGER


def watch_settings() -> kopf.OperatorSettings:
    """kopf persists nothing and posts nothing; a watch that stands still is begun anew from where it was."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.watching.server_timeout = 300
    settings.watching.inactivity_timeout = 70  # the API server sends a bookmark each minute
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.execution.max_workers = 1
    return settings


async def watch(
    registry: kopf.OperatorRegistry,
    *,
    namespaces: Sequence[str],
    stop: asyncio.Event,
    settings: kopf.OperatorSettings | None = None,
) -> None:
    """Watch until told to stop. `namespaces`: none for all."""
    await kopf.operator(
        registry=registry,
        settings=settings or watch_settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
        identity=Identity(MANAGER),  # else it asks who the user is, and a container's may have no name
    )
