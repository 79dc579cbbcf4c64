"""The prompts are inspected before any pod is made: only then is the number of shards known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from frazil_jobs.api import conditions as c
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.base.exits import TEMPFAIL
from frazil_operator.build.labels import Owner
from frazil_operator.build.volumes import Job
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.plan import Ask

_SILENT_SECONDS: Final = 10.0
"""For so long a job whose prompts are asked for may have no status at all."""
_AGAIN_SECONDS: Final = 60.0
"""The engine asks again by itself; this is for an engine that lost the question."""
_LATE_SECONDS: Final = 120.0
"""An answer that hasn't come by then is told as trouble."""


def pinned(
    draft: Draft, job: GenerationJob, owner: Owner, *, from_child: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The pin of the prompts: the one that children were made for, or a fresh one; None while there is none yet.

    A file that can't be used fails the job.
    """
    if from_child is not None:
        return _good(draft, from_child)
    reference = job.spec.prompts.config_map_ref
    if reference is not None and draft.observed.config_map_text is None and draft.observed.inspection is None:
        draft.read_config_map = (reference.name, reference.key)
    answer = draft.observed.inspection
    if answer is not None and answer.pin is not None:
        return _good(draft, answer.pin) if _unchanged(draft, answer.pin) else None
    if answer is not None and answer.exit_code not in (0, TEMPFAIL):
        draft.condition(c.PROMPTS_INSPECTED, "False", reason=c.INVALID_PROMPTS, message=answer.error)
        draft.fail(c.INVALID_PROMPTS, answer.error)
        return None
    payload: dict[str, Any] = {"job": draft_job(job, owner)}
    if draft.observed.config_map_text is not None:
        payload["text"] = draft.observed.config_map_text
    if reference is None or draft.observed.config_map_text is not None:
        draft.asks.append(Ask("inspect", f"{owner.uid}/inspect", payload))
    draft.again(_AGAIN_SECONDS)
    if answer is not None:
        draft.condition(c.PROMPTS_INSPECTED, "False", reason=c.PROMPTS_UNREACHABLE, message=answer.error)
    else:
        _tell_waiting(draft)
    return None


def _tell_waiting(draft: Draft) -> None:
    """Nothing at first: the answer comes within a second as a rule, and then one write tells all."""
    asked = draft.observed.inspect_asked_seconds or 0.0
    if asked < _SILENT_SECONDS and not draft.observed.job.get("status"):
        draft.silent = True
        draft.again(_SILENT_SECONDS - asked)
        return
    told = draft.reason_of(c.PROMPTS_INSPECTED) in (c.INSPECTING, c.WORKER_SILENT)
    since = draft.since(c.PROMPTS_INSPECTED) if told else None
    if since is not None and (draft.now - since).total_seconds() >= _LATE_SECONDS:
        message = "the worker Deployment of Frazil was asked to read the prompts and doesn't answer: see its pod's log"
        draft.condition(c.PROMPTS_INSPECTED, "False", reason=c.WORKER_SILENT, message=message)
    else:
        message = "the worker Deployment was asked to read the prompts"
        draft.condition(c.PROMPTS_INSPECTED, "False", reason=c.INSPECTING, message=message)


def _unchanged(draft: Draft, pin: Mapping[str, Any]) -> bool:
    """Whether these are the prompts that the job was begun with. Others fail it: its shards would not fit together."""
    known = (draft.fields.get("prompts") or {}).get("sha256")
    if not known or known == pin["sha256"]:  # the server fills in "" where a status was written before the inspection
        return True
    message = f"the prompts are not those that the job was begun with (sha256 {str(known)[:12]}…): make a new job"
    draft.condition(c.PROMPTS_INSPECTED, "False", reason=c.PROMPTS_CHANGED, message=message)
    draft.fail(c.PROMPTS_CHANGED, message)
    return False


def _good(draft: Draft, pin: Mapping[str, Any]) -> dict[str, Any]:
    count, sha256 = int(pin["count"]), str(pin["sha256"])
    draft.fields["prompts"] = {"count": count, "sha256": sha256}
    message = f"{count} prompts, sha256 {sha256[:12]}…"
    draft.condition(c.PROMPTS_INSPECTED, "True", reason=c.INSPECTED, message=message)
    return dict(pin)


def draft_job(job: Job, owner: Owner) -> dict[str, Any]:
    """The job as the worker Deployment is told of it: spec and identity."""
    return {
        "apiVersion": job.api_version,
        "kind": job.kind,
        "metadata": {"name": owner.name, "namespace": owner.namespace, "uid": owner.uid},
        "spec": job.spec.document(),
    }
