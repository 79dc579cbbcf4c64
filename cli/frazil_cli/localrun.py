"""One run of a job on this machine: the three parts of a pod as processes, once a replica, and one embedded Redis.

What both kinds of job share; what each does is in `generationrun` and `trainingrun`. What earlier runs left in their spools
is stored first. The spool is the truth throughout: whatever dies, what was made is there, and the next run of the same job
goes on from it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from frazil_cli import components, redis_server
from frazil_cli.components import COMPUTE, CONTROL, FETCH, UPLOAD, AnyPrepared
from frazil_cli.display import Display, Shown, duration
from frazil_cli.errors import ComponentFailed
from frazil_cli.interrupts import Interrupted, Interrupts
from frazil_cli.lastwords import ending, last_words
from frazil_cli.local import GivenUp, Supervisor
from frazil_cli.watching import fetching
from frazil_cli.workspace import Workspace
from frazil_jobs.base.exits import CONFIG, DATAERR, FAILED, TEMPFAIL, TryAgain
from frazil_jobs.outputs.scanner import UploadStatus
from frazil_jobs.outputs.spool import Spool
from frazil_jobs.stores import StoreConfig

R = TypeVar("R")

REDIS_SECONDS = 20.0
"""How long the embedded server may take to answer."""
DRAIN_SECONDS = 30.0
"""After a stop: how long what was made may take to the store. The rest stays in the spool for the next run."""
AWAY_SECONDS = 5.0
"""A store that was not to be reached for so long isn't waited for at a stop."""
END_SECONDS = 10.0
"""Between SIGTERM and SIGKILL of a process that should have ended."""
TICK_SECONDS = 0.1
AGAIN = "run the same command to finish the rest"


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What the options of `frazil run` say beside the layout."""

    store: StoreConfig
    redis_url: str | None = None
    """None: an embedded server."""
    retries: int = 0
    """How often the ranks of a replica are started again when they die."""
    store_timeout: float = 600.0
    """Seconds without the store before the run gives up (and keeps the spool)."""
    grace: float = 25.0
    """Seconds from a stop until the images in hand are dropped."""
    keep_spool: bool = False


class Watched(Protocol):
    """What is known of a run so far, whatever it makes."""

    redis_url: str

    @property
    def uploads(self) -> Mapping[int, UploadStatus]:
        """What the uploader of each replica last said."""

    @property
    def stored(self) -> int:
        """How much is stored: images, or steps."""

    def view(self, phase: str, replicas: Iterable[int], now: float) -> Shown:
        """All there is to show."""

    def trouble_seconds(self, now: float) -> float:
        """How long nothing has reached the store although something waits."""


@dataclass
class LocalRun(ABC, Generic[R]):
    """One run, from an empty or half-done work folder to its results."""

    prepared: AnyPrepared
    settings: RunSettings
    space: Workspace
    display: Display
    supervisor: Supervisor = field(default_factory=Supervisor)
    interrupts: Interrupts = field(default_factory=Interrupts)
    redis_url: str = ""
    watch: Watched = field(init=False)
    attempt: int | None = None
    """Of a TrainingJob."""
    _phase: str = ""

    finishing_words: ClassVar[str]
    """What the ranks do after a request to stop."""
    bad_input_words: ClassVar[str] = ""
    """What bad input means for the rest, when several shards may have had some."""

    @abstractmethod
    def work(self) -> R:
        """Do what the run is for, once Redis answers and nothing of an earlier run waits. Returns what it leaves."""

    @abstractmethod
    def so_far(self) -> str:
        """What is stored, for people."""

    def __call__(self) -> R:
        """Run it. Raises FrazilError. Nothing that was started is left when this returns or raises."""
        with self.space.locked(), self.interrupts, self.display:
            try:
                self._start_redis()
                self._store_leftovers()
                result = self.work()
                self.supervisor.stop([CONTROL, *self._named(UPLOAD)], seconds=END_SECONDS)
            except Interrupted:
                self._stop_in_order()
                raise TryAgain(f"stopped: {self.so_far()}", remedy=AGAIN) from None
            finally:
                self.supervisor.kill(reversed(self.supervisor.names()))
        if not self.settings.keep_spool:
            for spool in self.space.spools():
                self.space.remove_spool(spool)
        return result

    # --- the parts, in order ---

    def _start_redis(self) -> None:
        if self.settings.redis_url is not None:
            self.redis_url = self.watch.redis_url = self.settings.redis_url
            return
        server = redis_server.prepare(self.space.redis)
        self.supervisor.start(
            server.component(log=self.space.log(redis_server.NAME), restarts=components.SERVER_RESTARTS)
        )
        end = time.monotonic() + REDIS_SECONDS
        self._until(lambda: server.answers() or time.monotonic() > end, "starting")
        if not server.answers():
            raise self._failed(redis_server.NAME, FAILED, "the embedded Redis doesn't answer")
        self.redis_url = self.watch.redis_url = server.url

    def _store_leftovers(self) -> None:
        """Store what earlier runs of this job left, then forget their spools: fetch asks the store what it holds."""
        left = [spool for spool in self.space.spools() if not Spool(spool).drained()]
        if left:
            waiting = sum(len(Spool(spool).pending()) for spool in left)
            self.display.say(f"an earlier run left {waiting} files that are not stored yet", mark="!")
            for number, spool in enumerate(left):
                self._start_upload(number, spool)
            self._until(
                lambda: all(Spool(spool).drained() for spool in left), "storing what an earlier run left", store=True
            )
            self.supervisor.stop(self._named(UPLOAD), seconds=END_SECONDS)
        for spool in self.space.spools():
            self.space.remove_spool(spool)

    def _fetch(self) -> None:
        """An uploader and a fetch process for each replica; wait until all is there."""
        for replica in self._replicas():
            Spool(self.space.spool(replica))
            self._start_upload(replica, self.space.spool(replica))
        first, *others = self._replicas()
        # The first one brings the model; the others find it.
        for group in ([first], others):
            self._fetch_again(group)

    def _fetch_again(self, replicas: Iterable[int]) -> None:
        group = list(replicas)
        names = [components.name_of(FETCH, replica) for replica in group]
        for replica in group:
            self.supervisor.start(components.fetch(self._context(replica)))
        spools = [self.space.spool(replica) for replica in group]
        self._until(partial(self._ended, names), partial(fetching, spools))
        for name in names:
            self._require(name, "fetch")

    def _stop_in_order(self) -> None:
        """Compute first: it finishes or drops what is in hand. Then the store gets what was made, for a while."""
        self.interrupts.begin_ending()
        compute = [*self._named(COMPUTE), *self._named(FETCH)]
        self.supervisor.terminate(compute)
        end = time.monotonic() + self.settings.grace + END_SECONDS
        self._while(
            lambda: any(self.supervisor.alive(name) for name in compute), end, f"stopping: {self.finishing_words}"
        )
        self.supervisor.kill(compute)
        end = time.monotonic() + DRAIN_SECONDS
        self._while(lambda: self._waiting() > 0 and not self._store_is_away(), end, "stopping: storing what was made")
        self.supervisor.stop([CONTROL, *self._named(UPLOAD)], seconds=END_SECONDS)

    # --- waiting ---

    def _until(self, done: Callable[[], bool], phase: str | Callable[[], str], *, store: bool = False) -> None:
        """Wait, show, supervise. Raises Interrupted, and FrazilError for what can't be waited out.

        `store`: what is waited for needs the store, whose time-out counts.
        """
        while not done():
            self.interrupts.check()
            self._tick(phase)
            self._check_servers()
            if store and (seconds := self.watch.trouble_seconds(time.monotonic())) > self.settings.store_timeout:
                self._store_lost(seconds)

    def _while(self, going: Callable[[], bool], end: float, phase: str) -> None:
        """Wait while the run is ending. A second request to stop ends it at once."""
        while going() and time.monotonic() < end and not self.interrupts.at_once:
            self._tick(phase)

    def _tick(self, phase: str | Callable[[], str]) -> None:
        self.supervisor.poll()
        words = phase if isinstance(phase, str) else phase()
        self.display.show(self.watch.view(words, self._replicas(), time.monotonic()))
        time.sleep(TICK_SECONDS)

    def _check_servers(self) -> None:
        """Redis and the Celery workers must be there, or be coming back."""
        for name in [redis_server.NAME, CONTROL, *self._named(UPLOAD)]:
            outcome = self.supervisor.outcome(name)
            if isinstance(outcome, GivenUp):
                code = CONFIG if outcome.code == CONFIG else TEMPFAIL
                times = self.supervisor.deaths(name)
                self._stop_in_order()
                raise self._failed(name, code, f"{name} {ending(outcome.code)}, {times} times", remedy=AGAIN)

    def _store_lost(self, seconds: float) -> None:
        status = next(status for status in self.watch.uploads.values() if status.state != "Ready")
        self._stop_in_order()
        raise TryAgain(
            f"{status.message}, for {duration(seconds)}; {self.so_far()}",
            field="--store",
            remedy=f"{AGAIN}: what was made is kept in {self.space.root}",
        )

    # --- small questions ---

    def _replicas(self) -> range:
        return range(self.prepared.layout.replicas)

    def _context(self, replica: int) -> components.Context:
        return components.Context(
            prepared=self.prepared,
            store=self.settings.store,
            redis_url=self.redis_url,
            space=self.space,
            replica=replica,
            spool=self.space.spool(replica),
            grace=self.settings.grace,
            attempt=self.attempt,
        )

    def _start_upload(self, replica: int, spool: Path) -> None:
        self.supervisor.start(components.upload(self._context(replica), spool=spool))

    def _named(self, kind: str) -> list[str]:
        return [name for name in self.supervisor.names() if components.kind_of(name) == kind]

    def _ended(self, names: Iterable[str]) -> bool:
        return not any(self.supervisor.running(name) for name in names)

    def _has_failed(self, names: Iterable[str]) -> bool:
        """Whether a replica failed so that the others need not go on; bad input is its own shards' alone."""
        return any(self._code(name) not in (0, None, DATAERR) for name in names)

    def _first_failure(self, names: list[str]) -> str | None:
        """The replica that decides: any that failed before one with bad input."""
        failed = [name for name in names if self._code(name) not in (0, None)]
        return min(failed, key=lambda name: self._code(name) == DATAERR, default=None)

    def _code(self, name: str) -> int | None:
        outcome = self.supervisor.outcome(name)
        if outcome is None:
            return None
        if isinstance(outcome, GivenUp):
            return TEMPFAIL if outcome.code < 0 else outcome.code
        return 0

    def _waiting(self) -> int:
        return sum(len(Spool(spool).pending()) for spool in self.space.spools())

    def _store_is_away(self) -> bool:
        return self.watch.trouble_seconds(time.monotonic()) > AWAY_SECONDS

    # --- failures ---

    def _require(self, name: str, words: str) -> None:
        code = self._code(name)
        if code not in (0, None):
            self._stop_in_order()
            raise self._failed(name, code, self._why(name, code) or f"{words} failed")

    def _why(self, name: str, code: int | None) -> str:
        """One line. What the process said last is the message itself when it's one line, else shown above it."""
        words = last_words(self.supervisor.component(name).log)
        if words and "\n" not in words and code in (DATAERR, CONFIG):
            return f"{words}; {self.so_far()}" if self.watch.stored else words
        if code == DATAERR and self.bad_input_words:
            return self.bad_input_words
        outcome = self.supervisor.outcome(name)
        how = ending(outcome.code) if isinstance(outcome, GivenUp) else "failed"
        return f"{name} {how}; {self.so_far()}"

    def _failed(self, name: str, code: int | None, message: str, *, remedy: str | None = None) -> ComponentFailed:
        log = self.supervisor.component(name).log
        words = last_words(log)
        return ComponentFailed(
            message,
            exit_code=code if code is not None else FAILED,
            details="" if words == message else words,
            log=str(log),
            remedy=remedy,
        )
