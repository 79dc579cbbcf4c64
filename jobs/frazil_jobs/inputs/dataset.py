"""Data sets of TrainingJobs: found, fetched into the cache where they lie elsewhere, and looked at (dataset_files)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from frazil_jobs.api.trainingjob import Dataset, Task
from frazil_jobs.inputs import cache
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.bucket import bucket_source
from frazil_jobs.inputs.cache import Source
from frazil_jobs.inputs.dataset_files import ENDINGS, FIELD, DatasetFiles, look
from frazil_jobs.inputs.locations import Hub, Local
from frazil_jobs.inputs.models import hub_source, refuse_revision
from frazil_jobs.inputs.progress import Report, quiet


def resolve_dataset(
    dataset: Dataset, task: Task, *, base_dir: Path, access: Access, report: Report = quiet
) -> DatasetFiles:
    """The data set of a spec, its columns checked. Raises BadConfiguration (78), BadInput (65), TryAgain (75)."""
    where = access.locate(dataset.uri, base_dir=base_dir, field=FIELD)
    if isinstance(where, Local):
        refuse_revision(dataset.revision, "spec.dataset.revision", what="a path")
        return look(where.path, dataset, task)
    source: Source | None
    if isinstance(where, Hub):
        source, key = hub_source(
            where, dataset.revision, access, wanted=("dataset",), field="spec.dataset", kind="dataset"
        )
    else:
        refuse_revision(dataset.revision, "spec.dataset.revision")
        source = bucket_source(where, access=access, field=FIELD)
        key = cache.key_of("s3", where.bucket, where.key, source.identity, "dataset")
    root = cache.find(access.cache, key)
    if root is None:
        assert source is not None, "without a source, the cache was found complete"
        root = cache.ensure(access.cache, key, source.only(_data(source)), report=report)
    return look(root, dataset, task)


def _data(source: Source) -> list[str]:
    """Files of a repository that can be data: no code, no cards."""
    endings = {ending for known in ENDINGS.values() for ending in known}
    return [file.name for file in source.files if PurePosixPath(file.name).suffix.lower() in endings]
