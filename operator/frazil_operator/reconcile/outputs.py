"""The end of a job's work: asked to be recounted from the store; the manifest is what makes it Complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from frazil_jobs.api import conditions as c
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.naming import job_prefix
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import DATAERR, TEMPFAIL
from frazil_operator.build.labels import Owner
from frazil_operator.build.volumes import Job
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.inspection import draft_job
from frazil_operator.reconcile.plan import Ask, Finalization
from frazil_operator.settings import Settings

_AGAIN_SECONDS: Final = 60.0


def place(draft: Draft, job: Job, owner: Owner, settings: Settings) -> None:
    """Say where the results are going."""
    destination = settings.destination(job.spec.output.destination)
    if destination is not None:
        before = draft.fields.get("outputs") or {}
        uri = f"{destination.uri.rstrip('/')}/{job_prefix(job, owner.uid)}/"
        draft.fields["outputs"] = {"bytes": 0, **before, "uri": uri}


def finalize(draft: Draft, job: GenerationJob, owner: Owner, pin: Mapping[str, Any], *, failed_shards: int) -> None:
    """Ask for the recount; when it's there, decide between Complete and Failed."""
    reference = job.spec.prompts.config_map_ref
    text = draft.observed.config_map_text
    if reference is not None and text is None and draft.observed.finalization is None:
        draft.read_config_map = (reference.name, reference.key)
    answer = _recounted(draft, job, owner, prompts=dict(pin), **({"text": text} if text is not None else {}))
    if answer is None:
        return
    if answer.error and not answer.total:
        reason = c.PROMPTS_CHANGED if answer.exit_code == DATAERR else c.BAD_CONFIGURATION
        draft.fail(reason, f"the results can't be finalized: {answer.error}")
        return
    count = f"{answer.stored} of {answer.total} outputs are stored"
    _recount(draft, stored=answer.stored, total=answer.total)
    if answer.error:
        least = job.spec.success_policy.min_stored_percent
        if failed_shards:
            wanted = f"successPolicy.minStoredPercent asks for {least} %"
            draft.fail(c.MAX_FAILED_SHARDS, f"{failed_shards} shards have failed: {count}, and {wanted}")
        else:
            draft.fail(c.OUTPUTS_LOST, f"{count}, though every shard ended well: something removed them from the store")
        return
    _tell_stored(draft, answer, count)
    all_there = answer.stored >= answer.total
    draft.complete(c.SUCCEEDED if all_there else c.SUCCESS_POLICY_MET, count)


def finalize_training(draft: Draft, job: TrainingJob, owner: Owner) -> None:
    """The same for a training that has done all its steps."""
    answer = _recounted(draft, job, owner)
    if answer is None:
        return
    count = f"{answer.stored} of {answer.total} files are stored"
    if answer.error and not answer.total:
        draft.fail(c.BAD_CONFIGURATION, f"the results can't be finalized: {answer.error}")
    elif answer.error:
        draft.fail(c.OUTPUTS_LOST, f"{count}, though the training ended well: {answer.error}")
    else:
        _tell_stored(draft, answer, count)
        draft.complete(c.SUCCEEDED, f"{job.spec.steps} steps are done")


def question(kind: str, spec: Mapping[str, Any]) -> str:
    """Which recount is asked for: the steps of a TrainingJob may grow, and what was answered before is no answer then."""
    return f"finalize-{spec['steps']}" if kind == "TrainingJob" else "finalize"


def _recounted(draft: Draft, job: Job, owner: Owner, **more: Any) -> Finalization | None:
    """What the recount found. None until it's there, or while the store does not answer: then it's asked for."""
    answer = draft.observed.finalization
    if answer is not None and not (answer.error and answer.exit_code == TEMPFAIL and not answer.total):
        return answer
    payload = {"job": draft_job(job, owner), "uid": owner.uid, "prefix": job_prefix(job, owner.uid), **more}
    key = f"{owner.uid}/{question(job.kind, draft.observed.job['spec'])}"
    draft.asks.append(Ask("finalize", key, payload))
    draft.again(_AGAIN_SECONDS)
    if answer is not None:
        draft.condition(c.OUTPUTS_STORED, "False", reason=c.UPLOAD_FAILED, message=answer.error)
    elif draft.reason_of(c.OUTPUTS_STORED) != c.UPLOAD_FAILED:
        message = "everything is made and uploaded; it's being recounted from the store"
        draft.condition(c.OUTPUTS_STORED, "False", reason=c.FINALIZING, message=message)
    return None


def _tell_stored(draft: Draft, answer: Finalization, count: str) -> None:
    base = str(draft.fields["outputs"]["uri"])
    draft.fields["outputs"] |= {"bytes": answer.bytes, "manifest": base + answer.manifest}
    if answer.gallery:
        draft.fields["outputs"]["gallery"] = base + answer.gallery
    message = f"{count}, and the manifest is written" + (f"; {answer.note}" if answer.note else "")
    draft.condition(c.OUTPUTS_STORED, "True", reason=c.ALL_STORED, message=message)


def _recount(draft: Draft, *, stored: int, total: int) -> None:
    progress = dict(draft.fields.get("progress") or {})
    progress.pop("estimatedRemainingSeconds", None)
    progress.pop("imagesPerSecond", None)
    percent = stored * 100 // total if total else 0
    draft.fields["progress"] = {
        **progress,
        "total": total,
        "stored": stored,
        "generated": max(stored, int(progress.get("generated", 0))),
        "percent": percent,
        "summary": f"{stored}/{total}",
    }
