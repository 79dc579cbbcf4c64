"""The Celery tasks on whole jobs: `frazil.inspect`, `frazil.finalize` and `frazil.delete_outputs`.

All are idempotent and asked again until their result is seen. What is wrong with a job, or with what it names, is a result
as well: `{"error": {"exitCode", "message"}}`. So is a store that is down (75): whoever asked decides when to ask again.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from celery import shared_task

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration, FrazilError
from frazil_jobs.control.destinations import access_for
from frazil_jobs.control.finalize import Finalized, FinalizeRequest, TooLittleStored, finalize
from frazil_jobs.control.finalize_training import finalize_training
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.prompts import inspect_prompts
from frazil_jobs.inputs.rows import PromptsPin
from frazil_jobs.outputs.celery_app import DELETE_OUTPUTS, FINALIZE, INSPECT
from frazil_jobs.stores import open_store

BASE_VARIABLE: Final = "FRAZIL_JOB_FOLDER"
"""Set only where jobs may name files of this machine: the folder of the job file of a local run."""
_BATCH: Final = 1000
_UID8: Final = re.compile(r"[0-9a-f]{8}")


@shared_task(name=INSPECT, ignore_result=False)  # type: ignore[untyped-decorator]
def inspect(job: dict[str, Any], text: str | None = None) -> dict[str, Any]:
    """Inspect the prompts of `job` (a GenerationJob as JSON); `text` is that of its ConfigMap key.

    Returns `{"prompts": PromptsPin}`.
    """
    try:
        given = GenerationJob.model_validate(job)
        _, access = access_for(given.metadata.namespace, given.spec.output.destination, local_files=False)
        with tempfile.TemporaryDirectory() as folder:
            access = _with_text(access, given, text, Path(folder))
            pin = inspect_prompts(given.spec.prompts, base_dir=Path("/"), access=access)
    except FrazilError as error:
        return _error(error)
    return {"prompts": pin.model_dump(mode="json")}


@shared_task(name=FINALIZE, ignore_result=False)  # type: ignore[untyped-decorator]
def finalize_job(
    job: dict[str, Any], uid: str, prefix: str, prompts: dict[str, Any] | None = None, text: str | None = None
) -> dict[str, Any]:
    """Finalize `job`: a GenerationJob, whose prompts were pinned as `prompts`, or a TrainingJob. Returns
    `{"finalized": Finalized}`.

    Too little in the store is an error that carries `stored` and `total`.
    """
    base = os.environ.get(BASE_VARIABLE)
    try:
        given = (TrainingJob if job.get("kind") == "TrainingJob" else GenerationJob).model_validate(job)
        config, access = access_for(
            given.metadata.namespace, given.spec.output.destination, local_files=base is not None
        )
        store = open_store(config)
        if isinstance(given, TrainingJob):
            return _finalized(finalize_training(given, uid, prefix, store))
        with tempfile.TemporaryDirectory() as folder:
            request = FinalizeRequest(
                job=given,
                uid=uid,
                prefix=prefix,
                pin=PromptsPin.model_validate(prompts),
                base_dir=Path(base or "/"),
            )
            found = finalize(request, store, _with_text(access, given, text, Path(folder)))
    except TooLittleStored as error:
        answer = _error(error)
        answer["error"] |= {"stored": error.stored, "total": error.total}
        return answer
    except FrazilError as error:
        return _error(error)
    return _finalized(found)


def _finalized(found: Finalized) -> dict[str, Any]:
    return {"finalized": found.model_dump(mode="json", by_alias=True)}


@shared_task(name=DELETE_OUTPUTS, ignore_result=False)  # type: ignore[untyped-decorator]
def delete_outputs(namespace: str, destination: str, prefix: str, uid: str) -> dict[str, Any]:
    """Remove what lies below the prefix of one job that was deleted, and nothing else. Returns `{"removed": n}`."""
    try:
        check_own_prefix(namespace, prefix, uid)
        config, _ = access_for(namespace, destination, local_files=False)
        store = open_store(config)
        removed = 0
        while keys := [info.key for info, _ in zip(store.list(f"{prefix}/"), range(_BATCH), strict=False)]:
            store.delete(keys)
            removed += len(keys)
    except FrazilError as error:
        return _error(error)
    return {"removed": removed}


def check_own_prefix(namespace: str, prefix: str, uid: str) -> None:
    """Raise BadConfiguration unless `prefix` is that of a job with this uid in this namespace."""
    parts = prefix.split("/")
    own = uid.replace("-", "")[:8]
    good = (
        len(parts) >= 2
        and parts[0] == namespace
        and not {"", ".", ".."} & set(parts)
        and _UID8.fullmatch(own) is not None
        and parts[-1].endswith(f"-{own}")
    )
    if not good:
        raise BadConfiguration(f"{prefix!r} is not the prefix of a job {uid} in {namespace}", field="prefix")


def _with_text(access: Access, job: GenerationJob, text: str | None, folder: Path) -> Access:
    """Access with the ConfigMap's text in a file of its key's name (its ending says the format)."""
    reference = job.spec.prompts.config_map_ref
    if text is None or reference is None:
        return access
    path = folder / reference.key
    path.write_text(text, encoding="utf-8")
    return replace(access, config_map_file=path)


def _error(error: FrazilError) -> dict[str, Any]:
    return {"error": {"exitCode": error.exit_code, "message": str(error)}}
