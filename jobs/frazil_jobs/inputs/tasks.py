"""The Celery task `frazil.inspect`: the prompts of a job, read and pinned before any GPU is taken.

The operator asks the chart's worker for it. It works for others, so it reads no path of its own machine for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery import Task as CeleryTask
from celery import shared_task

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.base.exits import FrazilError, TryAgain
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.prompts import inspect_prompts

INSPECT = "frazil.inspect"
RETRIES = 8
_FIRST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 120.0


@shared_task(name=INSPECT, bind=True, acks_late=True, max_retries=RETRIES)  # type: ignore[untyped-decorator]
def inspect(self: CeleryTask, job: dict[str, Any]) -> dict[str, Any]:
    """Inspect the prompts of `job` (a GenerationJob as JSON). Idempotent.

    Returns `{"prompts": PromptsPin}`, or `{"error": {"exitCode", "message"}}`: what is wrong with a file is a result.
    A store that is down is tried again; after the last attempt it is the result as well, with exit code 75.
    """
    try:
        spec = GenerationJob.model_validate(job).spec
        pin = inspect_prompts(spec.prompts, base_dir=Path("/"), access=Access.from_env(local_files=False))
    except TryAgain as error:
        if self.request.retries >= RETRIES:
            return _error(error)
        pause = min(_FIRST_PAUSE_SECONDS * 2**self.request.retries, _LONGEST_PAUSE_SECONDS)
        raise self.retry(exc=error, countdown=pause) from error
    except FrazilError as error:
        return _error(error)
    return {"prompts": pin.model_dump(mode="json")}


def _error(error: FrazilError) -> dict[str, Any]:
    return {"error": {"exitCode": error.exit_code, "message": str(error)}}
