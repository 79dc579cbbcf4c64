"""A TrainingJob: one gang, attempt after attempt, each from the newest committed checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from frazil_jobs.api import conditions as c
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_operator.build.children import config_map, gang_job, service
from frazil_operator.build.labels import Owner
from frazil_operator.gang.placement import place_gang
from frazil_operator.reconcile import children as kids
from frazil_operator.reconcile import deadlines, gangs, outputs, queue
from frazil_operator.reconcile.common import begin_work, gang_condition, stay_stopped, tell_jobs, wait_for_strangers
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.plan import Plan
from frazil_operator.reconcile.pods import release_lost, tell_readiness
from frazil_operator.reconcile.stopping import hold
from frazil_operator.reconcile.times import text_of
from frazil_operator.settings import Settings

_SOON_SECONDS: Final = 1.0


def reconcile_training(draft: Draft, job: TrainingJob, owner: Owner, settings: Settings) -> Plan:
    """What to do about a TrainingJob that is neither finished nor being deleted."""
    children = [child for child in draft.observed.of("job") if not kids.deleted(child)]
    outputs.place(draft, job, owner, settings)
    release_lost(draft, settings)
    if stay_stopped(draft, job, children):
        return draft.plan(suspend=True)
    if wait_for_strangers(draft):
        return draft.plan()
    _tell_progress(draft, job)
    newest, old = gangs.current(draft)
    for replaced in old:
        draft.delete(replaced)
    draft.fields |= {"attempt": gangs.highest_attempt(draft), "restarts": gangs.charged(draft)}
    gang_condition(draft, job)
    gang = newest.get(None)
    if gang is None:
        _start(draft, job, owner, settings, attempt=int(draft.fields["attempt"]))
        queue.mirror(draft, job, [])
        begin_work(draft, job)
        _describe(draft, owner, None)
        deadlines.enforce(draft, job)
        return draft.plan()
    if kids.deleted(gang.job):
        draft.again(_SOON_SECONDS)
        return draft.plan()
    _describe(draft, owner, gang)
    tell_jobs(draft, [gang.job])
    if queue.mirror(draft, job, [gang.job]):
        begin_work(draft, job)
    if gang.done:
        draft.complete(c.SUCCEEDED, f"{job.spec.steps} steps are done")
    elif gang.over:
        _replace(draft, job, owner, gang, settings)
    else:
        nodes = job.spec.workers.nodes_per_replica
        tell_readiness(draft, ready=kids.ready(gang.job), wanted=nodes)
        gangs.tell_running(draft)
        deadlines.enforce(draft, job)
    if draft.finished:
        hold(draft, job, [gang.job])
    return draft.plan()


def _start(
    draft: Draft, job: TrainingJob, owner: Owner, settings: Settings, *, attempt: int, restarts: int | None = None
) -> None:
    """One attempt: its spec (steps may have grown), the Service by which its pods meet, and the gang."""
    provider = draft.observed.gang.provider if job.spec.scheduling.gang != "None" else "none"
    several = job.spec.workers.nodes_per_replica > 1
    if several and job.spec.scheduling.gang == "Required" and provider == "none":
        return
    name = owner.child_name(attempt)
    draft.applies.append(config_map(job, owner, attempt=attempt))
    if several:
        draft.applies.append(service(owner, attempt=attempt))
    placement = place_gang(provider, job, owner, name=name, attempt=attempt)
    draft.applies += placement.objects
    draft.applies.append(
        gang_job(
            job,
            owner,
            attempt=attempt,
            config_map=name,
            settings=settings,
            restarts=int(draft.fields.get("restarts", 0)) if restarts is None else restarts,
            placement=placement,
        )
    )


def _replace(draft: Draft, job: TrainingJob, owner: Owner, gang: gangs.Gang, settings: Settings) -> None:
    """Charge what the failure costs and start the next attempt, or end the job."""
    policy = job.spec.failure_policy
    action = gangs.verdict(gang, policy.rules)
    words = kids.told(gang.failure, "a pod of the gang was lost")
    if action in ("FailJob", "FailShard"):
        draft.fail(c.BAD_CONFIGURATION, words)
        return
    free = action == "Ignore"
    restarts = int(draft.fields["restarts"]) + (0 if free else 1)
    if restarts > policy.max_restarts:
        draft.fail(c.MAX_RESTARTS_EXCEEDED, f"{policy.max_restarts} restarts were charged, one more would be: {words}")
        return
    attempt = gang.attempt + 1
    without = attempt - int((draft.fields.get("checkpoint") or {}).get("attempt", 0))
    if without > policy.max_restarts_without_progress:
        draft.fail(c.NO_PROGRESS, f"{without} attempts in a row stored no checkpoint: {words}")
        return
    gangs.tell_restart(draft, gang, free=free)
    draft.fields |= {"attempt": attempt, "restarts": restarts}
    _start(draft, job, owner, settings, attempt=attempt, restarts=restarts)


def _describe(draft: Draft, owner: Owner, gang: gangs.Gang | None) -> None:
    """One replica, ready or not."""
    nodes = int(gang.job["spec"]["completions"]) if gang else 0
    draft.fields["workers"] = {
        "desired": 1,
        "active": 1 if gang and kids.active(gang.job) else 0,
        "ready": 1 if gang and kids.ready(gang.job) >= nodes else 0,
        "selector": owner.selector,
    }


def _tell_progress(draft: Draft, job: TrainingJob) -> None:
    """Set status.progress and status.checkpoint from what the leader wrote last; steps never go back within an attempt."""
    found: Mapping[str, Any] = next(iter(draft.observed.progress or ()), {})
    before = dict(draft.fields.get("progress") or {})
    step = int(found.get("step", before.get("step", 0)))
    after = {**before, "step": step, "totalSteps": job.spec.steps, "summary": f"{step}/{job.spec.steps}"}
    after |= {
        name: str(found[key])
        for name, key in (("loss", "loss"), ("throughput", "throughput"), ("freezeRatio", "freeze_ratio"))
        if found.get(key) is not None
    }
    last = before.pop("lastUpdateTime", None)
    same = {name: value for name, value in after.items() if name != "lastUpdateTime"} == before
    after["lastUpdateTime"] = last if last and same else text_of(draft.now)
    draft.fields["progress"] = after
    checkpoint = found.get("checkpoint")
    known = draft.fields.get("checkpoint") or {}
    if checkpoint and int(checkpoint.get("step", 0)) > int(known.get("step", 0)):
        draft.fields["checkpoint"] = {**known, **checkpoint}
        step = int(checkpoint["step"])
        draft.condition(c.CHECKPOINT_STORED, "True", reason=c.STORED, message=f"step {step} can be resumed from")
    elif not known:
        draft.condition(c.CHECKPOINT_STORED, "False", reason=c.NO_CHECKPOINT, message="none so far")
