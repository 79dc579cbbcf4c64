"""A TrainingJob's ranks without a launcher: in this process, or in those of a `RankPool`. The uploader is a thread.

`Run` is one attempt: it reads what `fetch` would have left, trains, and gives back what people would look at.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.inputs import checkpoints
from frazil_jobs.inputs.dataset_files import look
from frazil_jobs.inputs.training_task import TrainingTask
from frazil_jobs.launching.launcher import scratch_of
from frazil_jobs.launching.settings import RankSettings
from frazil_jobs.launching.stopping import StopFlag
from frazil_jobs.outputs.spool import Spool
from frazil_jobs.outputs.uploader import Uploader
from frazil_jobs.stores import StoreConfig, open_store
from frazil_jobs.training import session

PREFIX = "default/tiny-0a1b2c3d"
UID = "0a1b2c3d-0000-4000-8000-000000000000"


def store_of(folder: Path):
    return open_store(StoreConfig(uri=f"file://{folder}/store"))


def fetched(job: TrainingJob, *, model: Path, data: Path, folder: Path, attempt: int = 0) -> TrainingTask:
    """What `fetch` leaves in the spool of an attempt."""
    spool = folder / f"spool-{attempt}"
    Spool(spool)
    store = store_of(folder)
    found = checkpoints.find(store, PREFIX) if job.spec.checkpoint.resume == "Latest" else None
    resume = None
    if found is not None:
        resume = spool / "input" / "checkpoint"
        checkpoints.bring(store, PREFIX, found, resume)
    task = TrainingTask(
        job=job, uid=UID, prefix=PREFIX, attempt=attempt, model=model, dataset=look(data, job.spec.dataset, job.spec.task),
        resume_step=found.step if found else None, resume=resume,
    )  # fmt: skip
    task.write(spool)
    return task


@contextlib.contextmanager
def uploading(folder: Path, attempt: int = 0):
    """An uploader of an attempt's spool, as long as the block runs."""
    spool = Spool(folder / f"spool-{attempt}")
    uploader = Uploader(spool, store_of(folder), PREFIX)
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.02):
            for entry in spool.pending():
                uploader.upload(entry)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@dataclass
class StopAfter(StopFlag):
    """Asks to stop once so many steps were begun (each asks once)."""

    steps: int
    asked_times: int = field(default=0)

    def asked(self) -> bool:
        self.asked_times += 1
        return self.asked_times > self.steps


def rank_settings(folder: Path, attempt: int, *, rank: int = 0, world: int = 1) -> RankSettings:
    name = hashlib.sha256(f"{folder}-{attempt}".encode()).hexdigest()[:16]  # the same on all ranks
    run = folder / f"spool-{attempt}" / "run" / name
    run.mkdir(parents=True, exist_ok=True)
    return RankSettings(
        spool=folder / f"spool-{attempt}", run=run, rank=rank, local_rank=rank, local_ranks=world, world=world,
        device="cpu", threads=1,
    )  # fmt: skip


def run_rank(folder: Path, attempt: int, stop_after: int | None = None, rank: int = 0, world: int = 1) -> None:
    """The whole of a rank."""
    flag = StopAfter(stop_after) if stop_after is not None else StopFlag()
    settings = rank_settings(folder, attempt, rank=rank, world=world)
    try:
        session.run_rank(settings, flag)
    finally:
        shutil.rmtree(scratch_of(settings.run), ignore_errors=True)


def stored_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The exported weights in the store."""
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    model = folder / "store" / PREFIX / "model"
    for path in sorted(((model / "transformer") if (model / "transformer").exists() else model).glob("*.safetensors")):
        found |= load_file(path)
    return found


def pool_run(folder: str, attempt: int, stop_after: int | None = None) -> str:
    """`run_rank` on a rank of a RankPool, whose process group stands already. Returns how it ended."""
    rank, world = dist.get_rank(), dist.get_world_size()
    session.meet = lambda *_args, **_kwargs: None  # the pool's own group is the job's
    destroy, dist.destroy_process_group = dist.destroy_process_group, lambda: None
    try:
        run_rank(Path(folder), attempt, stop_after, rank=rank, world=world)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        dist.destroy_process_group = destroy
    return "done"
