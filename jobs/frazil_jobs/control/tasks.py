"""The Celery task `frazil.finalize`: idempotent, asked again until its result is seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import shared_task

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.base.exits import FrazilError
from frazil_jobs.control.finalize import FinalizeRequest, finalize
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.rows import PromptsPin
from frazil_jobs.stores import StoreConfig, open_store

FINALIZE = "frazil.finalize"
BASE_VARIABLE = "FRAZIL_JOB_FOLDER"
"""Set only where jobs may name files of this machine: the folder of the job file of a local run."""


@shared_task(name=FINALIZE, ignore_result=False)  # type: ignore[untyped-decorator]
def finalize_job(job: dict[str, Any], uid: str, prefix: str, prompts: dict[str, Any]) -> dict[str, Any]:
    """Finalize `job`, whose prompts were pinned as `prompts`.

    Returns `{"finalized": Finalized}` or `{"error": {"exitCode", "message"}}`: too little stored, or a store that is down,
    is a result too (75), and whoever asked decides when to ask again.
    """
    folder = os.environ.get(BASE_VARIABLE)
    try:
        config = StoreConfig.from_env()
        assert config is not None, "the worker has a store"
        request = FinalizeRequest(
            job=GenerationJob.model_validate(job),
            uid=uid,
            prefix=prefix,
            pin=PromptsPin.model_validate(prompts),
            base_dir=Path(folder or "/"),
        )
        found = finalize(request, open_store(config), Access.from_env(local_files=folder is not None))
    except FrazilError as error:
        return {"error": {"exitCode": error.exit_code, "message": str(error)}}
    return {"finalized": found.model_dump(mode="json", by_alias=True)}
