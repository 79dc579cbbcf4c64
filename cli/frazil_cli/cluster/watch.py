"""`frazil watch`: how jobs of the cluster get on, to their end."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from frazil_cli import options
from frazil_cli.cluster import access

if TYPE_CHECKING:
    from frazil_cli.cluster.client import Cluster, Object
    from frazil_cli.cluster.feed import News
    from frazil_cli.cluster.screen import Screen
    from frazil_cli.cluster.snapshot import Snapshot

FAILED: Final = 1
STOPPED: Final = 75


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A job, also as trainingjob/NAME; all of the namespace without one.",
            show_default=False,
        ),
    ] = None,
    namespace: access.Namespace = None,
    context: access.Context = None,
    kubeconfig: access.Kubeconfig = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=1, metavar="SECONDS", help="Stop looking after so long.", show_default="none"),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            callback=options.note_json,
            rich_help_panel=options.SCREEN,
            help="Print one JSON object a line at every change; an error is one as well.",
        ),
    ] = False,
    debug: options.Debug = False,
) -> int:
    """Show how jobs of the cluster get on, until they are Complete or Failed.

    Of one job: its outputs, its pace, its shards, what it waits for, what is wrong and what the cluster said of it last.
    Of a whole namespace: a row a job, and what is wrong; it ends when none is at work any more. Looking on changes
    nothing: stop it with Ctrl-C whenever you like.

    Examples:

    - `frazil watch ice -n team-a`
    - `frazil watch`  all jobs of the namespace
    - `frazil watch ice --json | jq -r .stored`

    Exit codes: 0 Complete · 1 Failed, or deleted (of a namespace: any of those that were at work) · 75 stopped, out of
    time, or the cluster is away · 78 no such job.
    """
    from frazil_cli.cluster.client import JOB_PLURALS, Cluster
    from frazil_cli.cluster.feed import Feed
    from frazil_cli.cluster.jobs import find_job, require_frazil
    from frazil_cli.cluster.screen import choose

    cluster = Cluster.connect(access.Access(kubeconfig, context, namespace))
    require_frazil(cluster)
    job = find_job(cluster, name) if name else None
    kinds = (str(job["kind"]),) if job else tuple(JOB_PLURALS)
    only = str(job["metadata"]["name"]) if job else None
    watching = Watching(cluster, kinds, uid=str(job["metadata"]["uid"]) if job else None)
    screen = choose(as_json=as_json)
    with Feed(cluster, kinds, name=only) as feed, screen:
        try:
            return watching.until_the_end(feed.news, screen, timeout=timeout)
        except KeyboardInterrupt:
            typer.echo("stopped looking; the jobs go on", err=True)
            return STOPPED


class Watching:
    """What is known of the jobs that are looked at."""

    def __init__(self, cluster: Cluster, kinds: tuple[str, ...], *, uid: str | None) -> None:
        self._cluster = cluster
        self._missing = set(kinds)
        self._uid = uid
        """Of the one job; None: all of the namespace."""
        self._jobs: dict[str, Object] = {}
        self._events: tuple[Object, ...] = ()
        self._silence: str | None = None
        self._at_work: set[str] = set()
        """Jobs that were seen at work: their ends are the exit code."""
        self._lost: set[str] = set()
        """Of those, the ones that were deleted."""

    def until_the_end(self, news: queue.Queue[News], screen: Screen, *, timeout: float | None) -> int:
        """Show what comes until all is over; the exit code. Raises FrazilError when it can't be looked at any more."""
        end = time.monotonic() + timeout if timeout else float("inf")
        while True:
            self._take_all(news)
            if not self._missing:
                screen.show(self.snapshots(), silence=self._silence)
                if (code := self.code()) is not None:
                    return self._last_look(news, screen, code)
            if time.monotonic() >= end:
                typer.echo("out of time: the jobs go on", err=True)
                return STOPPED

    def _last_look(self, news: queue.Queue[News], screen: Screen, code: int) -> int:
        """The end with the Events that belong to it."""
        if not self._events:
            self._take_all(news)
            screen.show(self.snapshots(), silence=None)
        if not self._jobs and self._uid is None and not self._lost:
            typer.echo(f"there are no jobs in the namespace {self._cluster.namespace!r}", err=True)
        return code

    def _take_all(self, news: queue.Queue[News]) -> None:
        """Everything that is there; wait up to a second for the first."""
        try:
            self._take(news.get(timeout=1.0))
            while True:
                self._take(news.get_nowait())
        except queue.Empty:
            return

    def _take(self, one: News) -> None:
        from frazil_cli.cluster import feed

        match one:
            case feed.Listed(kind, jobs):
                self._missing.discard(kind)
                there = {str(job["metadata"]["uid"]) for job in jobs}
                for uid, known in list(self._jobs.items()):
                    if known["kind"] == kind and uid not in there:
                        self._remove(uid)
                for job in jobs:
                    self._put(job)
                if self._uid is not None and self._uid not in there:
                    self._remove(self._uid)
            case feed.Changed(job):
                self._put(job)
            case feed.Deleted(job):
                self._remove(str(job["metadata"]["uid"]))
            case feed.Events(events):
                self._events = events
            case feed.Silence(problem):
                self._silence = problem.message if problem else None
            case feed.Over(problem):
                raise problem

    def _put(self, job: Object) -> None:
        uid = str(job["metadata"]["uid"])
        if self._uid in (None, uid):
            self._jobs[uid] = job
            if (job.get("status") or {}).get("phase") not in ("Complete", "Failed"):
                self._at_work.add(uid)

    def _remove(self, uid: str) -> None:
        if self._uid in (None, uid):
            self._jobs.pop(uid, None)
            if self._uid == uid or uid in self._at_work:
                self._lost.add(uid)

    def snapshots(self) -> list[Snapshot]:
        """Those at work first, then the newest."""
        from frazil_cli.cluster.snapshot import snapshot

        jobs = sorted(self._jobs.values(), key=lambda job: str(job["metadata"]["creationTimestamp"]), reverse=True)
        found = [snapshot(job, self._events) for job in jobs]
        return sorted(found, key=lambda seen: seen.finished)

    def code(self) -> int | None:
        """The exit code, once all is over."""
        seen = {one.uid: one for one in self.snapshots()}
        if self._uid is not None:
            if self._uid in self._lost:
                typer.echo("the job was deleted", err=True)
                return FAILED
            one = seen.get(self._uid)
            return None if one is None or not one.finished else FAILED * (one.phase == "Failed")
        if any(not one.finished for one in seen.values()):
            return None
        ended_badly = any(uid in self._lost or seen[uid].phase == "Failed" for uid in self._at_work)
        return FAILED if ended_badly else 0
