"""What `plan` and `run` find out before anything is loaded: the job, its prompts, its identity, its place in the store, its
layout on this machine. A job that can't work ends here, with the field and the way out. Loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from frazil_cli.machine import Degrees, Layout, Machine, layout, this_machine
from frazil_jobs.api import naming
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import load_job
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.inputs import classes
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.folder import ModelFolder
from frazil_jobs.inputs.locations import Local
from frazil_jobs.inputs.models import resolve_model
from frazil_jobs.inputs.prompts import inspect_prompts
from frazil_jobs.inputs.rows import PromptsPin
from frazil_jobs.stores import StoreConfig

DEFAULT_STORE = "frazil-results"
"""A folder beside where the command is called."""
STORE_VARIABLE = "FRAZIL_STORE"
ENDPOINT_VARIABLE = "FRAZIL_S3_ENDPOINT"


@dataclass(frozen=True)
class Wishes:
    """What a person says about the layout; None: the best for this machine."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    ranks: int | None = None
    replicas: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A job that was checked, and how it will run here."""

    job: GenerationJob
    """As written."""
    file: Path
    pin: PromptsPin
    uid: str
    prefix: str
    machine: Machine
    layout: Layout
    module: ClassVar[str] = "frazil_jobs.generation"
    """What the launcher of the ranks runs."""

    @property
    def base_dir(self) -> Path:
        """What plain paths in the job are relative to."""
        return self.file.absolute().parent

    @property
    def images(self) -> int:
        """Of the whole job."""
        return self.pin.count * self.job.spec.images_per_prompt

    def shards_of(self, replica: int) -> list[int]:
        """The shards of one replica: dealt out in turn, so that all replicas end at about the same time."""
        return list(range(replica, self.pin.shards, self.layout.replicas))

    def fetch_env(self, replica: int) -> dict[str, str]:
        """What `fetch` is told beside the job."""
        shards = ",".join(str(shard) for shard in self.shards_of(replica))
        return {"FRAZIL_SHARDS": shards, "FRAZIL_PROMPTS_SHA256": self.pin.sha256}

    def images_of(self, shard: int) -> int:
        """Of one shard."""
        return self.pin.span(shard)[1] * self.job.spec.images_per_prompt


def prepare(file: Path, *, store: StoreConfig | None, wishes: Wishes, machine: Machine | None = None) -> Prepared:
    """Check a job file and decide its layout. Raises FrazilError for the first thing that can't work."""
    job = load_generation_job(file)
    check_names(job)
    found = machine or this_machine()
    # The degrees are checked before a large prompt file is read.
    layout_for(job, machine=found, shards=1 << 20, wishes=wishes)
    access = Access.from_env(environment_for(store))
    base_dir = file.absolute().parent
    model = local_model(job, base_dir=base_dir, access=access)
    pin = inspect_prompts(job.spec.prompts, base_dir=base_dir, access=access)
    uid = naming.local_uid(job, pin.sha256, model_fingerprint=model.fingerprint if model else None)
    return Prepared(
        job=job,
        file=file,
        pin=pin,
        uid=uid,
        prefix=naming.job_prefix(job, uid),
        machine=found,
        layout=layout_for(job, machine=found, shards=pin.shards, wishes=wishes),
    )


def load_generation_job(file: Path) -> GenerationJob:
    """The job in `file`. Raises BadConfiguration."""
    job = load_job(file)
    if not isinstance(job, GenerationJob):
        raise BadConfiguration(f"{file} is a {job.kind}", field="kind", remedy="this command takes a GenerationJob")
    return job


def check_names(job: GenerationJob) -> None:
    """Classes that the installed diffusers doesn't have are found before anything is fetched."""
    if job.spec.model.pipeline is not None:
        classes.require_pipeline(job.spec.model.pipeline, field="spec.model.pipeline")
    if job.spec.sampling.scheduler is not None:
        classes.require_scheduler(job.spec.sampling.scheduler)


def local_model(job: GenerationJob, *, base_dir: Path, access: Access) -> ModelFolder | None:
    """The model, checked by its small files, when it's a folder of this machine. Others are left to `fetch`."""
    where = access.locate(job.spec.model.uri, base_dir=base_dir, field="spec.model.uri")
    return resolve_model(job.spec.model, base_dir=base_dir, access=access) if isinstance(where, Local) else None


def layout_for(job: GenerationJob, *, machine: Machine, shards: int, wishes: Wishes) -> Layout:
    """The layout of a job on `machine`."""
    asked = job.spec.parallelism
    found = layout(
        Degrees(asked.conditioning, asked.pipeline, asked.sequence),
        machine=machine,
        shards=shards,
        device=wishes.device,
        ranks=wishes.ranks,
        replicas=wishes.replicas,
        threads=wishes.threads,
    )
    staged = asked.mode == "Hybrid" or asked.pipeline > 1
    if staged and (found.degrees.conditioning, found.degrees.pipeline) != (asked.conditioning, asked.pipeline):
        ranks = asked.conditioning * asked.pipeline * asked.sequence
        raise BadConfiguration(
            f"mode {asked.mode} with {ranks} ranks can't run on {found.degrees.ranks}: its stages would be others, and so "
            "its images",
            field="spec.parallelism",
            remedy=f"use --ranks {ranks} (on a CPU ranks may share a core), or set spec.parallelism.mode to Exact",
        )
    return found


def store_config(store: str | None, endpoint: str | None, environment: Mapping[str, str] = os.environ) -> StoreConfig:
    """The store that options and environment name; a folder here by default. Raises BadConfiguration."""
    uri = store or environment.get(STORE_VARIABLE) or DEFAULT_STORE
    scheme, separator, _ = uri.partition("://")
    if separator and scheme not in ("s3", "file"):
        raise BadConfiguration(
            f"{scheme}:// is no store", field="--store", remedy="give a folder or s3://bucket/prefix"
        )
    if not separator:
        uri = Path(uri).expanduser().absolute().as_uri()
    values = {**environment, STORE_VARIABLE: uri}
    if endpoint:
        values[ENDPOINT_VARIABLE] = endpoint
    config = StoreConfig.from_env(values)
    assert config is not None, "the uri is given"
    return config


def environment_for(store: StoreConfig | None, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """This process's environment with the store's settings in it: for the processes that may hold them."""
    return {**environment, **(store.to_env() if store is not None else {})}


def effective_job(prepared: Prepared) -> GenerationJob:
    """The job with the degrees that were decided for this machine: what the ranks are told. Changes no identity."""
    degrees = prepared.layout.degrees
    spec = prepared.job.spec
    parallelism = spec.parallelism.model_copy(
        update={"conditioning": degrees.conditioning, "pipeline": degrees.pipeline, "sequence": degrees.sequence}
    )
    workers = spec.workers.model_copy(update={"nodes_per_replica": 1, "gpus_per_node": degrees.ranks})
    return prepared.job.model_copy(
        update={"spec": spec.model_copy(update={"parallelism": parallelism, "workers": workers})}
    )
