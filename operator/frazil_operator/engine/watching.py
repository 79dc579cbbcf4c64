"""kopf's part: the watches, and how they are kept alive. What is heard goes to the handlers of a registry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import kopf
from kopf._core.engines.peering import Identity

from frazil_jobs.api.base import GROUP
from frazil_operator.build.labels import MANAGER


class _NoEssence(kopf.DiffBaseStorage):
    """Nothing is compared with what was handled before: our handlers take each event as it is. kopf's own storage copies
    every object that a watch tells of, for a comparison that nobody asks for: a fifth of the operator's time.
    """

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Nowhere."""


class _NoProgress(kopf.ProgressStorage):
    """Handlers of events have no progress."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        """Nowhere."""

    def purge(self, **_: Any) -> None:
        """There is nothing."""

    def touch(self, **_: Any) -> None:
        """There is nothing."""

    def clear(self, *, essence: Any) -> Any:
        return essence


def watch_settings() -> kopf.OperatorSettings:
    """kopf persists nothing and posts nothing; a watch that stands still is begun anew from where it was."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.persistence.diffbase_storage = _NoEssence()
    settings.persistence.progress_storage = _NoProgress()
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
