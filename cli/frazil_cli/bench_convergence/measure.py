"""Runs a job with every method and seed on two ranks of this machine: the methods in turn, step by step, in one pair of
processes a seed. With a folder to keep them in, runs that are there are not made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from frazil_cli import bench_ranks
from frazil_cli.bench_convergence.methods import Settings, job_of
from frazil_cli.bench_convergence.rows import Run
from frazil_jobs.api.load import load_job
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.base.files import write_atomically
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.dataset import resolve_dataset
from frazil_jobs.inputs.training_model import resolve_training_model

RANKS: Final = 2
SECONDS: Final = 4 * 3600.0
"""Of one seed, at most."""


def converge(
    files: Sequence[Path],
    settings: Settings,
    *,
    methods: Sequence[str],
    seeds: int,
    keep: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Run]:
    """The runs of every job with every method and seed, job by job. Raises FrazilError for a job that can't be run."""
    documents = [_document(file, settings, methods) for file in files]
    found: list[list[Run]] = [[] for _ in files]
    for seed in range(seeds):
        for at, document in enumerate(documents):
            name = document["name"]
            done = seed * len(files) + at

            def say(text: str, name: str = name, seed: int = seed, done: int = done) -> None:
                tell(f"{name}, seed {seed} ({done + 1} of {seeds * len(files)}): {text}")

            say("starting two ranks")
            found[at] += _runs({**document, "seed": seed}, keep, say)
    return [run for runs in found for run in runs]


def _document(file: Path, settings: Settings, methods: Sequence[str]) -> dict[str, Any]:
    """What the ranks of a job are told, but the seed."""
    job = load_job(file)
    if not isinstance(job, TrainingJob):
        raise BadConfiguration(f"{file} is a {job.kind}", field="kind", remedy="this command takes TrainingJobs")
    parallelism = job.spec.parallelism
    if (parallelism.pipeline, parallelism.data) != (RANKS, 1):
        raise BadConfiguration(
            f"{file} has pipeline {parallelism.pipeline} and data {parallelism.data}",
            field="spec.parallelism",
            remedy=f"each rank has a core of its own: pipeline {RANKS}, data 1",
        )
    base_dir, access = file.absolute().parent, Access.from_env()
    dataset = resolve_dataset(job.spec.dataset, job.spec.task, base_dir=base_dir, access=access)
    model = resolve_training_model(job.spec, base_dir=base_dir, access=access)
    jobs = {method: job_of(job, method, settings).model_dump(mode="json", by_alias=True) for method in methods}
    return {
        "name": job.metadata.name,
        "jobs": jobs,
        "settings": asdict(settings),
        "model": str(model.path.absolute()),
        "model_fingerprint": model.fingerprint,
        "dataset": dataset.model_copy(update={"root": dataset.root.absolute()}).model_dump(mode="json"),
    }


def _runs(document: dict[str, Any], keep: Path | None, tell: Callable[[str], None]) -> list[Run]:
    """All methods with one seed: those kept, or new ones."""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]
    kept = keep / f"{document['name']}-{document['seed']}-{digest}.json" if keep is not None else None
    if kept is not None and kept.exists():
        made = json.loads(kept.read_text())
    else:
        made = bench_ranks.measure("frazil_cli.bench_convergence.rank", document, seconds=SECONDS, tell=tell)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, json.dumps(made))
    return [Run.of(each) for each in made]
