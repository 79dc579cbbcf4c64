"""What happens to jobs of a namespace, as it happens: list, then watch, again after every break, in threads of their own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from frazil_cli.cluster.client import Cluster, Gone, Object, Unreachable, job_path, path_of
from frazil_jobs.api.base import API_VERSION
from frazil_jobs.base.exits import FrazilError

WATCH_SECONDS: Final = 240
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 300.0
"""A cluster that hasn't answered for so long is given up."""


@dataclass(frozen=True)
class Listed:
    """All jobs of a kind, as they are now."""

    kind: str
    jobs: tuple[Object, ...]


@dataclass(frozen=True)
class Changed:
    """One job is new, or another than before."""

    job: Object


@dataclass(frozen=True)
class Deleted:
    """One job is gone."""

    job: Object


@dataclass(frozen=True)
class Events:
    """Events of the namespace."""

    events: tuple[Object, ...]


@dataclass(frozen=True)
class Silence:
    """The cluster doesn't answer; tried again. None: it does again."""

    problem: FrazilError | None


@dataclass(frozen=True)
class Over:
    """It can't be looked at any more."""

    problem: FrazilError


Follow = Callable[[str | None], Iterator[str]]
"""Goes on from a version (None: from nothing), for a while; gives the versions that it has seen."""
News = Listed | Changed | Deleted | Events | Silence | Over


class Feed:
    """News of jobs, in `news`, while the context lasts. With `name` only of the job of that name."""

    def __init__(self, cluster: Cluster, kinds: tuple[str, ...], *, name: str | None = None) -> None:
        self.news: queue.Queue[News] = queue.Queue()
        self._cluster = cluster
        self._kinds = kinds
        self._name = name
        self._ended = threading.Event()

    def __enter__(self) -> Feed:
        for kind in self._kinds:
            self._start(f"watch-{kind}", partial(self._jobs, kind), tell=True)
        self._start("watch-events", partial(self._events, {}), tell=False)
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def _start(self, name: str, follow: Follow, *, tell: bool) -> None:
        threading.Thread(target=self._keep, args=(follow,), kwargs={"tell": tell}, name=name, daemon=True).start()

    def _keep(self, follow: Follow, *, tell: bool) -> None:
        """Follow something until the end, whatever breaks. `tell`: a break, and giving up, are news."""
        version: str | None = None
        pause, since, silent = FIRST_PAUSE_SECONDS, time.monotonic(), False
        while not self._ended.is_set():
            try:
                for reached in follow(version):
                    version = reached
                    if silent and tell:
                        self.news.put(Silence(None))
                    pause, since, silent = FIRST_PAUSE_SECONDS, time.monotonic(), False
                    if self._ended.is_set():
                        return
            except Gone:
                version = None
            except Unreachable as error:
                if time.monotonic() - since > SILENT_SECONDS:
                    self._give_up(error, tell=tell)
                    return
                if tell and not silent:
                    self.news.put(Silence(error))
                silent = True
                self._ended.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            except FrazilError as error:
                self._give_up(error, tell=tell)
                return

    def _give_up(self, error: FrazilError, *, tell: bool) -> None:
        if tell:
            self.news.put(Over(error))

    def _jobs(self, kind: str, version: str | None) -> Iterator[str]:
        """List where nothing is known, then watch for a while: the versions that one can go on from."""
        path = job_path(kind, self._cluster.namespace)
        selector = f"metadata.name={self._name}" if self._name else None
        if version is None:
            jobs, version = self._cluster.listed(path, fieldSelector=selector)
            self.news.put(Listed(kind, tuple(_whole(job, kind) for job in jobs)))
        changes = self._cluster.watch(path, version=version, seconds=WATCH_SECONDS, fieldSelector=selector)
        yield version
        for what, job in changes:
            if what == "DELETED":
                self.news.put(Deleted(_whole(job, kind)))
            elif what != "BOOKMARK":
                self.news.put(Changed(_whole(job, kind)))
            yield str(job["metadata"]["resourceVersion"])

    def _events(self, known: dict[str, Object], version: str | None) -> Iterator[str]:
        """As `_jobs`, of Events: a courtesy, so that who may not see them does without."""
        path = path_of("v1", "events", namespace=self._cluster.namespace)
        if version is None:
            events, version = self._cluster.listed(path)
            known.clear()
            known.update({event["metadata"]["uid"]: event for event in events if self._may_concern(event)})
            self.news.put(Events(tuple(known.values())))
        changes = self._cluster.watch(path, version=version, seconds=WATCH_SECONDS)
        yield version
        for what, event in changes:
            if what != "BOOKMARK" and self._may_concern(event):
                if what == "DELETED":
                    known.pop(event["metadata"]["uid"], None)
                else:
                    known[event["metadata"]["uid"]] = event
                self.news.put(Events(tuple(known.values())))
            yield str(event["metadata"]["resourceVersion"])

    def _may_concern(self, event: Object) -> bool:
        return self._name is None or str((event.get("involvedObject") or {}).get("name", "")).startswith(self._name)


def _whole(job: Object, kind: str) -> Object:
    """Items of a list carry no kind."""
    return {**job, "apiVersion": API_VERSION, "kind": kind}
