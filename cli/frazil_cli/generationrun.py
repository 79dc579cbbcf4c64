"""One run of a GenerationJob on this machine: fetch, ranks and upload for each replica, then the manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from frazil_cli import components, finishing
from frazil_cli.localrun import AGAIN, LocalRun
from frazil_cli.prepare import Prepared, effective_job
from frazil_cli.watching import Watch, stored_images, wanted_images
from frazil_jobs.base.exits import CONFIG, DATAERR
from frazil_jobs.inputs.task import Task


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run leaves, and what it took."""

    images: int
    generated: int
    """In this run."""
    seconds: float
    generating_seconds: float
    """From the first step until the last image was stored: without the start of the ranks and the load of the model."""
    manifest: Mapping[str, object]


@dataclass
class GenerationRun(LocalRun[Result]):
    """One run, from an empty or half-done work folder to the manifest."""

    prepared: Prepared
    watch: Watch = field(init=False)
    finishing_words: ClassVar[str] = "finishing the images in hand"
    bad_input_words: ClassVar[str] = "some prompts can't be used; all other images are stored"

    def __post_init__(self) -> None:
        self.watch = Watch(self.prepared, self.space)

    def work(self) -> Result:
        """Make what is missing, then the manifest."""
        started = time.monotonic()
        tasks = self._tasks()
        seconds = self._generate(tasks)
        manifest = self._finish()
        return Result(
            images=self.prepared.images,
            generated=max(0, self.watch.generated - self.watch.before),
            seconds=time.monotonic() - started,
            generating_seconds=seconds,
            manifest=manifest,
        )

    def _tasks(self) -> list[Task]:
        """What each replica has to do."""
        self._fetch()
        tasks = []
        for replica in self._replicas():
            spool = self.space.spool(replica)
            task = Task.read(spool).model_copy(update={"job": effective_job(self.prepared)})
            task.write(spool)
            tasks.append(task)
        self.watch.begin(tasks)
        return tasks

    def _generate(self, tasks: list[Task]) -> float:
        """Make what is missing. Returns the seconds that it took from the first step on."""
        started = time.monotonic()
        self.supervisor.start(components.control(self._context(0)))
        names = []
        for replica, task in enumerate(tasks):
            if stored_images(task) < wanted_images(task):
                component = components.compute(self._context(replica), retries=self.settings.retries)
                self.supervisor.start(component)
                names.append(component.name)
        if not names:
            self.display.say("everything is stored already: nothing to make", mark="✓")
            return 0.0
        self._until(lambda: self._ended(names) or self._has_failed(names), self._doing, store=True)
        if failed := self._first_failure(names):
            # What the other replicas have made so far is kept.
            self._stop_in_order()
            code = self._code(failed)
            raise self._failed(
                failed, code, self._why(failed, code), remedy=None if code in (DATAERR, CONFIG) else AGAIN
            )
        self.watch.look(self._replicas(), time.monotonic(), at_once=True)
        self.watch.all_stored()
        return time.monotonic() - (self.watch.first_step or started)

    def _finish(self) -> Mapping[str, object]:
        """The manifest, through Celery: asked again until its result is seen."""
        asking = finishing.Finishing(
            prepared=self.prepared,
            store=self.settings.store,
            redis_url=self.redis_url,
            patience=self.settings.store_timeout,
        )
        self._until(asking.done, "writing the manifest and the gallery")
        return asking.result

    def so_far(self) -> str:
        """How many images are stored."""
        return f"{self.watch.stored} of {self.prepared.images} images are stored"

    def _doing(self) -> str:
        at_work = self.watch.first_step is not None or self.watch.generated > self.watch.before
        return "generating" if at_work else "loading the model"
