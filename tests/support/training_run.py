"""A TrainingJob's ranks without a launcher: in this process, or in those of a `RankPool`. The uploader is a thread.

`Run` is one attempt: it reads what `fetch` would have left, trains, and gives back what people would look at.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pipeline_cases import timings_of
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.inputs import checkpoints
from frazil_jobs.inputs.dataset_files import look
from frazil_jobs.inputs.training_task import TrainingTask
from frazil_jobs.launching.launcher import scratch_of
from frazil_jobs.launching.settings import RankSettings
from frazil_jobs.launching.stopping import StopFlag
from frazil_jobs.outputs.spool import Acknowledgement, Spool
from frazil_jobs.outputs.uploader import Uploader
from frazil_jobs.stores import StoreConfig, open_store
from frazil_jobs.training import session, state
from frazil_jobs.training.checkpointing import Checkpoints
from frazil_jobs.training.freezing.injected import InjectedTimes

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


def rank_settings(
    folder: Path, attempt: int, *, rank: int = 0, world: int = 1, replay: Path | None = None
) -> RankSettings:
    name = hashlib.sha256(f"{folder}-{attempt}".encode()).hexdigest()[:16]  # the same on all ranks
    run = folder / f"spool-{attempt}" / "run" / name
    run.mkdir(parents=True, exist_ok=True)
    return RankSettings(
        spool=folder / f"spool-{attempt}", run=run, rank=rank, local_rank=rank, local_ranks=world, world=world,
        device="cpu", threads=1, replay=replay,
    )  # fmt: skip


def run_rank(
    folder: Path,
    attempt: int,
    stop_after: int | None = None,
    rank: int = 0,
    world: int = 1,
    flag: StopFlag | None = None,
    replay: Path | None = None,
) -> None:
    """The whole of a rank."""
    flag = StopAfter(stop_after) if stop_after is not None else flag or StopFlag()
    settings = rank_settings(folder, attempt, rank=rank, world=world, replay=replay)
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


@dataclass
class DiesAfter(StopFlag):
    """Kills its process, as `kill -9` does, once a checkpoint of step `step` is committed."""

    step: int
    trainer: Any = None

    def asked(self) -> bool:
        if self.trainer is not None and self.trainer.step == self.step:
            assert self.trainer.checkpoints.wait(60)
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def kept(folder: Path, rank: int = 0) -> dict[str, Any]:
    """What a rank kept for itself in the newest checkpoint of the store."""
    store = store_of(folder)
    found = checkpoints.find(store, PREFIX)
    assert found is not None
    with tempfile.TemporaryDirectory() as brought:
        checkpoints.bring(store, PREFIX, found, Path(brought))
        (Path(brought) / state.METADATA).rename(Path(brought) / ".metadata")
        reader = FileSystemReader(brought)
        size = reader.read_metadata().state_dict_metadata[f"rank/{rank}"].size
        part = {f"rank/{rank}": torch.empty(size, dtype=torch.uint8)}
        load(part, storage_reader=reader, no_dist=True)
    return torch.load(io.BytesIO(part[f"rank/{rank}"].numpy().tobytes()), weights_only=True)


def pool_run_frozen(
    folder: str,
    attempt: int,
    stop_after: int | None = None,
    *,
    injected: bool = True,
    replay: str | None = None,
    dies_after: int | None = None,
) -> str:
    """`pool_run` with times that are given, or with the plans in the file `replay`. Where `dies_after` is given, rank 1 is
    killed then."""
    made = session.make_trainer
    flag = DiesAfter(dies_after) if dies_after is not None and dist.get_rank() == 1 else StopFlag()

    def make_trainer(task, *arguments, **settings):
        parallelism = task.spec.parallelism
        times = timings_of(parallelism.schedule, parallelism.pipeline, microbatches=parallelism.microbatches)
        trainer = made(task, *arguments, **settings, injected=InjectedTimes(times) if injected else None)
        if isinstance(flag, DiesAfter):
            flag.trainer = trainer
        return trainer

    session.make_trainer = make_trainer
    try:
        return pool_run(folder, attempt, stop_after, flag=flag, replay=Path(replay) if replay is not None else None)
    finally:
        session.make_trainer = made


def pool_run(folder: str, attempt: int, stop_after: int | None = None, **more: Any) -> str:
    """`run_rank` on a rank of a RankPool, whose process group stands already. Returns how it ended."""
    rank, world = dist.get_rank(), dist.get_world_size()
    session.meet = lambda *_args, **_kwargs: None  # the pool's own group is the job's
    destroy, dist.destroy_process_group = dist.destroy_process_group, lambda: None
    try:
        run_rank(Path(folder), attempt, stop_after, rank=rank, world=world, **more)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        dist.destroy_process_group = destroy
    return "done"


def pool_checkpoint(folder: str, *, collective: float, full_for: float) -> int | None:
    """Write a checkpoint while rank 1's spool stays full for longer than any collective may take. Returns its step."""
    rank = dist.get_rank()
    spool = Spool(Path(folder) / f"spool-{rank}", limit_bytes=1000)
    freed = time.monotonic() + (full_for if rank == 1 else 0.0)
    first = spool.add("first", b"x" * 999, content_type="x/y")
    ended = threading.Event()

    def store() -> None:
        while not ended.wait(0.05):
            for name in spool.pending():
                entry = spool.entry(name)
                if entry is not None and (entry.id != first.id or time.monotonic() > freed):
                    spool.acknowledge(Acknowledgement(id=entry.id, key=entry.key, sha256=entry.sha256, size=entry.size))

    thread = threading.Thread(target=store, daemon=True)
    thread.start()
    group = dist.new_group(timeout=timedelta(seconds=collective), backend="gloo")
    made = Checkpoints(spool=spool, folder=spool.root / "run", attempt=0, keep=1, group=group)
    try:
        made.begin(3, {f"model/{rank}": torch.ones(4), f"rank/{rank}": torch.zeros(8, dtype=torch.uint8)}, {})
        assert made.wait(120)
        return made.newest.checkpoint.step if made.newest is not None else None
    finally:
        ended.set()
        thread.join()
