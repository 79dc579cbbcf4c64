"""Whether the watches tell what there is: at the start and now and then all is listed (names and versions) and compared.

Nothing is decided before the watches have told all that there was at the start (`caught_up`). A watch that stands still
while there is something to tell is not mended from here: the process ends, and the next one lists everything. What was
deleted while a watch was being renewed is never told by it at all; that is put right on the spot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, NamedTuple

from frazil_jobs.base.log import get_logger
from frazil_operator.build.labels import watched_label
from frazil_operator.engine.state import Id, State, named, version_of
from frazil_operator.kube.client import Kube, KubeError, NotFound
from frazil_operator.kube.paths import collection_of
from frazil_operator.reconcile.plan import Key

log = get_logger(__name__)
GRACE_SECONDS: Final = 120.0
"""For so long a watch may be behind and say nothing."""
LEAST_SECONDS: Final = 60.0
_LIST_AGAIN_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.5
_PAGE: Final = "500"
_METADATA: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_OWN: Final = ("GenerationJob", "TrainingJob")


class Listing(NamedTuple):
    """What there is."""

    versions: dict[Id, int]
    kinds: frozenset[str]
    """Those that could be listed: one that is not served just now says nothing of its objects."""


class Watchdog:
    """Compares what the watches have told with what there is."""

    def __init__(
        self,
        kube: Kube,
        state: State,
        *,
        watched: Mapping[str, str],
        namespaces: list[str],
        changed: Callable[[Key], None],
        seconds: float,
        grace: float = GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`watched`: API version by kind. `namespaces`: none for all. `changed`: called with a job to look at again."""
        self._kube = kube
        self._state = state
        self._watched = watched
        self._places: list[str | None] = [*namespaces] or [None]
        self._changed = changed
        self._seconds = max(seconds, LEAST_SECONDS)
        self._grace = grace
        self._clock = clock
        self._heard: dict[tuple[str, str | None], float] = {}

    def heard(self, kind: str, namespace: str) -> None:
        """A watch has told something."""
        self._heard[self._watch_of(kind, namespace)] = self._clock()

    async def caught_up(self) -> None:
        """Wait until the watches have told all that there was. What is deleted meanwhile is found by listing again."""
        began = self._clock()
        while True:
            try:
                there = await self._list()
            except KubeError as error:
                log.warning("what there is can't be listed yet", error=str(error))
                await asyncio.sleep(_POLL_SECONDS)
                continue
            until = self._clock() + _LIST_AGAIN_SECONDS
            while self._behind(there.versions):
                if self._clock() >= until:
                    break
                await asyncio.sleep(_POLL_SECONDS)
            else:
                log.info(
                    "all that there is is known", objects=len(there.versions), seconds=round(self._clock() - began, 1)
                )
                return

    async def run(self) -> None:
        """Look until a watch stands still; then return."""
        while True:
            await asyncio.sleep(self._seconds)
            try:
                if still := await self.look():
                    log.error("watches stand still; the operator begins anew", watches=still)
                    return
            except KubeError as error:
                log.warning("what there is can't be listed; compared later", error=str(error))

    async def look(self) -> list[str]:
        """Compare once; the watches that stand still. Raises KubeError."""
        before, began = self._state.versions(), self._clock()
        there = await self._list()
        behind = self._behind(there.versions)
        ghosts = _missing(before, there)
        if not behind and not ghosts:
            return []
        await asyncio.sleep(self._grace)
        there = await self._list()
        known = self._state.versions()
        for one in ghosts & _missing(known, there):
            key = self._state.lose(one)
            about = {"namespace": one.namespace} if key is None else named(key, self._state.job(key))
            log.info("a watch did not tell that an object is gone", object=f"{one.kind} {one.uid}", **about)
            if key is not None:
                self._changed(key)
        late = {one for one, version in behind.items() if one in there.versions and known.get(one, 0) < version}
        still = {self._watch_of(one.kind, one.namespace) for one in late}
        return sorted(
            kind if namespace is None else f"{kind} in {namespace}"
            for kind, namespace in still
            if self._heard.get((kind, namespace), 0.0) <= began
        )

    def _behind(self, there: Mapping[Id, int]) -> dict[Id, int]:
        """What the watches have not told so far, with its version."""
        known = self._state.versions()
        return {one: version for one, version in there.items() if known.get(one, 0) < version}

    def _watch_of(self, kind: str, namespace: str) -> tuple[str, str | None]:
        return kind, None if None in self._places else namespace

    async def _list(self) -> Listing:
        found: dict[Id, int] = {}
        kinds = set()
        for kind, api_version in self._watched.items():
            try:
                found |= await self._list_kind(kind, api_version)
                kinds.add(kind)
            except NotFound:
                log.warning("a kind is not served just now; it's not compared", watched=kind, version=api_version)
        return Listing(found, frozenset(kinds))

    async def _list_kind(self, kind: str, api_version: str) -> dict[Id, int]:
        return {
            Id(kind, str(meta["namespace"]), str(meta["uid"])): version_of({"metadata": meta})
            for namespace in self._places
            async for meta in self._metadata(api_version, kind, namespace)
        }

    async def _metadata(self, api_version: str, kind: str, namespace: str | None) -> AsyncIterator[dict[str, Any]]:
        query = {"limit": _PAGE} | _selector(kind)
        path = collection_of(api_version, kind, namespace)
        while True:
            page = await self._kube.request("GET", path, query=query, accept=_METADATA)
            for item in page.get("items") or ():
                yield item["metadata"]
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            query["continue"] = token


def _missing(known: Mapping[Id, int], there: Listing) -> set[Id]:
    """What is known and not there."""
    return {one for one in known if one.kind in there.kinds and one not in there.versions}


def _selector(kind: str) -> dict[str, str]:
    """What of a kind is watched."""
    if kind in _OWN:
        return {}
    label, value = watched_label(kind)
    return {"labelSelector": label if value is None else f"{label}={value}"}
