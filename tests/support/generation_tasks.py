"""Tasks on tiny pipelines, as `fetch` would leave them in a spool."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from typing import Any

from tiny_pipelines import call_arguments

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.inputs.rows import PromptRow, PromptsPin
from frazil_jobs.inputs.task import Shard, Task
from frazil_jobs.outputs.spool import Acknowledgement, Entry, Spool

PROMPTS = ("a red ring", "two blue squares", "a small green star", "nothing at all", "the sea at night")
SAMPLING_FIELDS = {"guidance_scale": str, "height": int, "width": int, "num_frames": int, "negative_prompt": str}
"""Arguments of a tiny pipeline's call that a job has a field for."""
RENAMED = {"num_frames": "frames"}


def sampling_of(name: str, **changes: Any) -> dict[str, Any]:
    """The sampling of a job that suits the tiny pipeline `name`, two steps."""
    arguments = call_arguments(name)
    fields = {
        RENAMED.get(argument, argument): kind(arguments[argument])
        for argument, kind in SAMPLING_FIELDS.items()
        if argument in arguments
    }
    extra = {argument: value for argument, value in arguments.items() if argument not in SAMPLING_FIELDS}
    return {"steps": 2, **fields, "extra": extra, **changes}


def make_job(name: str = "pixart", **spec: Any) -> GenerationJob:
    """A job for the tiny pipeline `name` on one rank. Keywords replace whole parts of the spec."""
    document = {
        "model": {"uri": f"file:///{name}"},
        "prompts": {"inline": list(PROMPTS), "per_shard": 2},
        "sampling": sampling_of(name),
        "parallelism": {"conditioning": 1, "timeout_seconds": 60},
        "workers": {"gpus_per_node": 1},
        **spec,
    }
    return GenerationJob.model_validate({"metadata": {"name": "tiny"}, "spec": document})


def make_task(
    job: GenerationJob, model: Path, *, rows: list[PromptRow] | None = None, pipeline: str, **task: Any
) -> Task:
    """The task of the whole job: all its rows, cut into its shards."""
    rows = [PromptRow(prompt=prompt) for prompt in PROMPTS] if rows is None else rows
    per_shard = job.spec.prompts.per_shard
    shards = [
        Shard(index=index, first=first, rows=rows[first : first + per_shard])
        for index, first in enumerate(range(0, len(rows), per_shard))
    ]
    pin = PromptsPin(
        sha256=hashlib.sha256(repr(rows).encode()).hexdigest(),
        count=len(rows),
        shards=len(shards),
        per_shard=per_shard,
        format="inline",
    )
    fields = {"uid": "0123456789abcdef", "prefix": "default/tiny-01234567", **task}
    return Task(job=job, prompts=pin, shards=shards, model=model, pipeline=pipeline, **fields)


class StandInUploader(threading.Thread):
    """Takes what comes into a spool and acknowledges it, as the uploader does. Use it as a context.

    `stored`: key to bytes.
    """

    def __init__(self, spool: Path) -> None:
        super().__init__(daemon=True)
        self._spool = Spool(spool)
        self._end = threading.Event()
        self.stored: dict[str, bytes] = {}
        self.entries: dict[str, Entry] = {}

    def run(self) -> None:
        while not self._end.wait(0.05):
            self.sweep()

    def sweep(self) -> None:
        """Store everything that waits."""
        for entry_id in self._spool.pending():
            entry = self._spool.entry(entry_id)
            assert entry is not None, entry_id
            with os.fdopen(self._spool.open_payload(entry_id), "rb") as file:
                data = file.read()
            assert hashlib.sha256(data).hexdigest() == entry.sha256
            self.stored[entry.key] = data
            self.entries[entry.key] = entry
            self._spool.acknowledge(Acknowledgement(id=entry.id, key=entry.key, sha256=entry.sha256, size=entry.size))

    def __enter__(self) -> StandInUploader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()
        self.sweep()
