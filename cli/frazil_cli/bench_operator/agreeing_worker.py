"""Stands in for the chart's worker Deployment: a real Celery worker that finds every job in order and all of it stored."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.base import log, parent
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.prompts import inspect_prompts
from frazil_jobs.outputs.celery_app import CONTROL_QUEUE, FINALIZE, INSPECT, make_app, redis_url_of, worker_of


def main() -> int:
    """Serve until told to stop."""
    parent.die_with_parent()
    log.configure("control")
    app = make_app(redis_url_of(os.environ))

    @app.task(name=INSPECT, ignore_result=False)  # type: ignore[untyped-decorator]
    def inspected(job: dict[str, Any], **_: Any) -> dict[str, Any]:
        access = Access(cache=Path("/nowhere"), local_files=False)
        pin = inspect_prompts(GenerationJob.model_validate(job).spec.prompts, base_dir=Path("/"), access=access)
        return {"prompts": pin.model_dump(mode="json")}

    @app.task(name=FINALIZE, ignore_result=False)  # type: ignore[untyped-decorator]
    def finalized(job: dict[str, Any], uid: str, prefix: str, **_: Any) -> dict[str, Any]:
        given = GenerationJob.model_validate(job)
        total = len(given.spec.prompts.inline or ()) * given.spec.images_per_prompt
        counts = {"total": total, "stored": total, "bytes": 1000 * total}
        return {"finalized": {**counts, "manifest": f"{prefix}/manifest.json", "gallery": f"{prefix}/index.html"}}

    worker = worker_of(app, CONTROL_QUEUE, threads=2)
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
