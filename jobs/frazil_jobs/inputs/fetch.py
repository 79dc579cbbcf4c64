"""`python -m frazil_jobs.inputs.fetch`: the init container of a pod, and the first process of `frazil run`.

Holds the read credentials. Brings the model into its cache and the prompts and pictures of its shards into the spool,
lists what is stored already, and writes the task last. What is cheap and can be wrong comes first: a bad row or a
scheduler that doesn't exist ends it before a byte of weights is read. It can be run again at any time.

Environment: FRAZIL_JOB_FILE, FRAZIL_SPOOL, FRAZIL_SHARDS ("0,2,4", "0-3"; absent: all), FRAZIL_PREFIX, FRAZIL_JOB_UID,
FRAZIL_PROMPTS_SHA256 (absent: the prompts are inspected here), FRAZIL_ATTEMPT (of a TrainingJob), FRAZIL_STORE and
FRAZIL_S3_* (frazil_jobs.stores), FRAZIL_MODEL_CACHE, FRAZIL_PVC_ROOT, FRAZIL_PROMPTS_FILE, HF_TOKEN, HF_ENDPOINT
(frazil_jobs.inputs.access), FRAZIL_PATIENCE_SECONDS (how long a store that is away is waited for; 0).
Exit codes: 0 done, 65 bad input, 75 try again, 78 bad configuration.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import load_job
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base import log
from frazil_jobs.base.exits import OK, TEMPFAIL, BadConfiguration, FrazilError, TryAgain, exit_code_of
from frazil_jobs.base.parent import die_with_parent
from frazil_jobs.inputs import checkpoints, classes
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.dataset import resolve_dataset
from frazil_jobs.inputs.models import resolve_lora, resolve_model
from frazil_jobs.inputs.pictures import Pictures
from frazil_jobs.inputs.progress import ProgressFile, State
from frazil_jobs.inputs.prompts import open_prompts
from frazil_jobs.inputs.rows import PromptRow, PromptsPin
from frazil_jobs.inputs.stored import stored_keys
from frazil_jobs.inputs.task import Shard, Task, input_folder, task_path
from frazil_jobs.inputs.training_model import resolve_training_model
from frazil_jobs.inputs.training_task import TrainingTask
from frazil_jobs.stores import ObjectStore, open_store

FIRST_PAUSE_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Order:
    """What one fetch is asked for."""

    job_file: Path
    spool: Path
    prefix: str
    uid: str
    shards: tuple[int, ...] | None
    """None: all."""
    prompts_sha256: str | None
    attempt: int = 0
    """Of a TrainingJob's gang."""

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Order:
        """Read the environment. Raises BadConfiguration that names the variable."""

        def required(name: str) -> str:
            if not environment.get(name):
                raise BadConfiguration("is not set", field=name)
            return environment[name]

        return cls(
            job_file=Path(required("FRAZIL_JOB_FILE")).absolute(),
            spool=Path(required("FRAZIL_SPOOL")).absolute(),
            prefix=required("FRAZIL_PREFIX").strip("/"),
            uid=required("FRAZIL_JOB_UID"),
            shards=parse_shards(environment.get("FRAZIL_SHARDS", "")),
            prompts_sha256=environment.get("FRAZIL_PROMPTS_SHA256") or None,
            attempt=int(environment.get("FRAZIL_ATTEMPT") or 0),
        )


def parse_shards(text: str) -> tuple[int, ...] | None:
    """Shard indices of "0,2,4" or "0-3,7", ascending; None for no text. Raises BadConfiguration."""
    if not text.strip():
        return None
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,7})(?:-(\d{1,7}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise BadConfiguration(f"{text!r} names no shards", field="FRAZIL_SHARDS", remedy='write "0,2,4" or "0-3"')
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def fetch(order: Order, access: Access) -> Task | TrainingTask:
    """Fetch all that the order asks for and write the task. Raises FrazilError with the exit code."""
    job = load_job(order.job_file)
    if isinstance(job, GenerationJob):
        return _fetch_generation(order, job, access)
    return _fetch_training(order, job, access)


def _fetch_training(order: Order, job: TrainingJob, access: Access) -> TrainingTask:
    """Data set, model, and the newest committed checkpoint unless the job begins anew each time."""
    progress = ProgressFile(order.spool)
    base_dir = order.job_file.parent
    spec = job.spec

    def report(state: State) -> Callable[[str, int, int], None]:
        return lambda what, done, total: progress.write(state, what, done, total)

    progress.write("dataset", spec.dataset.uri)
    files = resolve_dataset(spec.dataset, spec.task, base_dir=base_dir, access=access, report=report("dataset"))
    progress.write("model", spec.model.uri)
    model = resolve_training_model(spec, base_dir=base_dir, access=access, report=report("model"))
    progress.write("stored")
    store = _store_of(access)
    checkpoint = checkpoints.find(store, order.prefix) if job.spec.checkpoint.resume == "Latest" else None
    folder = input_folder(order.spool) / "checkpoint"
    if checkpoint is not None:
        shutil.rmtree(folder, ignore_errors=True)
        checkpoints.bring(store, order.prefix, checkpoint, folder)
    task = TrainingTask(
        job=job,
        uid=order.uid,
        prefix=order.prefix,
        attempt=order.attempt,
        model=model.path,
        dataset=files,
        resume_step=checkpoint.step if checkpoint else None,
        resume=folder if checkpoint else None,
    )
    task.write(order.spool)
    progress.write("done", done=model.size, total=model.size)
    return task


def _fetch_generation(order: Order, job: GenerationJob, access: Access) -> Task:
    task_path(order.spool).unlink(missing_ok=True)
    progress = ProgressFile(order.spool)
    if job.spec.sampling.scheduler is not None:
        classes.require_scheduler(job.spec.sampling.scheduler)
    base_dir = order.job_file.parent
    progress.write("prompts")
    pin, shards = _shards(order, job, access=access, progress=progress)
    progress.write("model", job.spec.model.uri)
    model = resolve_model(
        job.spec.model,
        base_dir=base_dir,
        access=access,
        report=lambda what, done, total: progress.write("model", what, done, total),
    )
    loras = [
        resolve_lora(
            lora,
            index,
            base_dir=base_dir,
            access=access,
            report=lambda what, done, total: progress.write("model", what, done, total),
        )
        for index, lora in enumerate(job.spec.model.lora)
    ]
    progress.write("stored")
    task = Task(
        job=job,
        uid=order.uid,
        prefix=order.prefix,
        prompts=pin,
        shards=shards,
        model=model.path,
        pipeline=model.pipeline,
        loras=loras,
        stored=_stored(order, job, pin, access=access),
    )
    task.write(order.spool)
    progress.write("done", done=model.size, total=model.size)
    return task


def _shards(
    order: Order, job: GenerationJob, *, access: Access, progress: ProgressFile
) -> tuple[PromptsPin, list[Shard]]:
    """The pin of the prompts and the ordered shards, their pictures in the spool."""
    with open_prompts(job.spec.prompts, base_dir=order.job_file.parent, access=access) as file:
        pin = file.pinned(order.prompts_sha256) if order.prompts_sha256 else file.inspect()
        indices = order.shards if order.shards is not None else tuple(range(pin.shards))
        if beyond := [index for index in indices if index >= pin.shards]:
            raise BadConfiguration(f"shard {beyond[0]} is beyond the last, {pin.shards - 1}", field="FRAZIL_SHARDS")
        pictures = Pictures(access=access, spool=order.spool, root=file.root, prompts_name=file.name)
        rows: dict[int, PromptRow] = {}
        for index, place, row in file.rows([pin.span(shard) for shard in indices]):
            if row.images:
                progress.write("pictures", f"{file.name} {place}")
            rows[index] = pictures.localized(row, place)
    shards = []
    for shard in indices:
        first, count = pin.span(shard)
        shards.append(Shard(index=shard, first=first, rows=[rows[first + offset] for offset in range(count)]))
    return pin, shards


def _store_of(access: Access) -> ObjectStore:
    if access.store is None:
        raise BadConfiguration("is not set", field="FRAZIL_STORE", remedy="name the store that results go to")
    return open_store(access.store)


def _stored(order: Order, job: GenerationJob, pin: PromptsPin, *, access: Access) -> dict[str, str | None]:
    indices = order.shards if order.shards is not None else range(pin.shards)
    return stored_keys(
        _store_of(access),
        prefix=order.prefix,
        output_format=job.spec.output.format,
        spans=[pin.span(shard) for shard in indices],
    )


def _stop(_number: int, _frame: object) -> None:
    """End at once: whatever is half done is gone on with, or made again, by the next fetch."""
    os._exit(TEMPFAIL)


def main() -> int:
    """The process: everything from the environment, the exit code for who started it."""
    die_with_parent()
    signal.signal(signal.SIGTERM, _stop)
    log.configure("fetch", shards=os.environ.get("FRAZIL_SHARDS", "all"))
    logger = log.get_logger()
    try:
        order = Order.from_env(os.environ)
        input_folder(order.spool).mkdir(parents=True, exist_ok=True)
    except FrazilError as error:
        logger.error("fetch can't start", error=str(error), exit_code=error.exit_code)
        return error.exit_code
    try:
        task = _patiently(order, Access.from_env(), seconds=float(os.environ.get("FRAZIL_PATIENCE_SECONDS") or 0))
    except Exception as caught:
        told = _disk_error(caught, order.spool) if isinstance(caught, OSError) else caught
        code = exit_code_of(told)
        ProgressFile(order.spool).write("failed", str(told))
        logger.error("fetch failed", error=str(told), exit_code=code, exc_info=not isinstance(told, FrazilError))
        return code
    if isinstance(task, TrainingTask):
        logger.info("fetched", job=task.job.metadata.name, attempt=task.attempt, resume_step=task.resume_step)
        return OK
    logger.info(
        "fetched",
        job=task.job.metadata.name,
        prompts=sum(len(shard.rows) for shard in task.shards),
        stored=len(task.stored),
        model=str(task.model),
    )
    return OK


def _patiently(order: Order, access: Access, *, seconds: float) -> Task | TrainingTask:
    """Fetch; while a store or hub is away, again for so many seconds: an outage should not cost a pod its tries."""
    end, pause = time.monotonic() + seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            return fetch(order, access)
        except TryAgain as error:
            if time.monotonic() + pause > end:
                raise
            log.get_logger().warning("trying again", error=str(error), pause=pause)
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _disk_error(error: OSError, spool: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TryAgain(f"the disk of the spool {spool} is full", remedy="give it more room")
    if error.errno in (errno.EROFS, errno.EACCES):
        return BadConfiguration(f"the spool can't be written: {error}", field="FRAZIL_SPOOL")
    return error


if __name__ == "__main__":
    sys.exit(main())
