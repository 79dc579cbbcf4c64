"""What `run` finds out about a TrainingJob before anything is loaded: model, data set and columns, identity, layout.

Loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from frazil_cli.machine import Degrees, Layout, Machine, this_machine
from frazil_cli.prepare import Wishes, environment_for
from frazil_jobs.api import naming
from frazil_jobs.api.checkpoints import FOLDER, newest, of_key
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.dataset import resolve_dataset
from frazil_jobs.inputs.dataset_files import FIELD
from frazil_jobs.inputs.locations import Local
from frazil_jobs.inputs.training_model import resolve_training_model
from frazil_jobs.stores import StoreConfig, open_store


@dataclass(frozen=True)
class PreparedTraining:
    """A TrainingJob that was checked, and how it will run here."""

    job: TrainingJob
    file: Path
    uid: str
    prefix: str
    machine: Machine
    layout: Layout
    module: ClassVar[str] = "frazil_jobs.training"
    """What the launcher of the ranks runs."""

    @property
    def base_dir(self) -> Path:
        """What plain paths in the job are relative to."""
        return self.file.absolute().parent

    def fetch_env(self, _replica: int) -> dict[str, str]:
        """What `fetch` is told beside the job: nothing."""
        return {}


@dataclass(frozen=True)
class Before:
    """What the store holds of earlier runs of the job."""

    step: int
    """Of the newest committed checkpoint; 0 for none."""
    attempt: int
    """The next one: its checkpoints have names that none before had."""


def prepare_training(
    job: TrainingJob, file: Path, *, store: StoreConfig | None, wishes: Wishes, machine: Machine | None = None
) -> PreparedTraining:
    """Check a TrainingJob and decide its layout. Raises FrazilError for the first thing that can't work."""
    found = machine or this_machine()
    layout = training_layout(job, machine=found, wishes=wishes)
    access = Access.from_env(environment_for(store))
    base_dir = file.absolute().parent
    model = data = None
    if _is_here(job.spec.dataset.uri, FIELD, base_dir, access):
        data = resolve_dataset(job.spec.dataset, job.spec.task, base_dir=base_dir, access=access).fingerprint
    if _is_here(job.spec.model.uri, "spec.model.uri", base_dir, access):
        model = resolve_training_model(job.spec, base_dir=base_dir, access=access).fingerprint
    uid = naming.local_training_uid(job, model_fingerprint=model, dataset_fingerprint=data)
    return PreparedTraining(
        job=job, file=file, uid=uid, prefix=naming.job_prefix(job, uid), machine=found, layout=layout
    )


def _is_here(uri: str, field: str, base_dir: Path, access: Access) -> bool:
    """Whether it's a folder of this machine. Others are left to `fetch`."""
    return isinstance(access.locate(uri, base_dir=base_dir, field=field), Local)


def training_layout(job: TrainingJob, *, machine: Machine, wishes: Wishes) -> Layout:
    """One rank a stage's place and replica: on CPUs as processes, on GPUs one each. Raises BadConfiguration."""
    degrees = job.spec.parallelism
    ranks = degrees.pipeline * degrees.data
    if wishes.ranks is not None and wishes.ranks != ranks:
        raise BadConfiguration(
            f"pipeline {degrees.pipeline} × data {degrees.data} are {ranks} ranks, not {wishes.ranks}",
            field="--ranks",
            remedy="leave it out, or change spec.parallelism: the number of stages is part of what is trained",
        )
    if wishes.replicas not in (None, 1):
        raise BadConfiguration(
            "a TrainingJob has one replica", field="--replicas", remedy="set spec.parallelism.data for more copies"
        )
    wants_gpus = wishes.device == "cuda" or (wishes.device == "auto" and bool(machine.gpus))
    if wants_gpus and len(machine.gpus) < ranks:
        raise BadConfiguration(
            f"{ranks} ranks need a GPU each; there are {len(machine.gpus)}",
            field="--device",
            remedy="use --device cpu, or lower spec.parallelism",
        )
    threads = wishes.threads or max(1, machine.cores // ranks)
    notes: tuple[str, ...] = ()
    if not wants_gpus and ranks > machine.cores:
        notes = (f"{ranks} ranks share {machine.cores} cores",)
    return Layout(
        device="cuda" if wants_gpus else "cpu",
        degrees=Degrees(1, degrees.pipeline, degrees.data),
        replicas=1,
        threads=threads,
        notes=notes,
    )


def look_before(config: StoreConfig, prefix: str, *, resumes: bool) -> Before:
    """What there is of earlier runs. Raises StoreUnreachable, StoreDenied."""
    keys = [info.key.removeprefix(f"{prefix}/") for info in open_store(config).list(f"{prefix}/{FOLDER}/")]
    attempts = [found[0].attempt for key in keys if (found := of_key(key)) is not None]
    last = newest(keys) if resumes else None
    return Before(step=last.step if last else 0, attempt=max(attempts, default=-1) + 1)
