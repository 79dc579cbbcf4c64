"""A TrainingJob: one gang, attempt after attempt, each from the newest committed checkpoint."""

from __future__ import annotations

from typing import Any, Final

from frazil_jobs.api import conditions as c
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.outputs.progress import TrainingProgress
from frazil_operator.build.children import companions, gang_job
from frazil_operator.build.labels import STEPS, Owner
from frazil_operator.gang.placement import place_gang
from frazil_operator.reconcile import children as kids
from frazil_operator.reconcile import deadlines, gangs, outputs, queue
from frazil_operator.reconcile.common import (
    begin_work,
    gang_condition,
    mend,
    stay_refused,
    stay_stopped,
    tell_jobs,
    wait_for_strangers,
)
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.plan import Plan
from frazil_operator.reconcile.pods import release_lost, tell_readiness
from frazil_operator.reconcile.progress import SLOWEST, decimal
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
    if wait_for_strangers(draft) or stay_refused(draft, job, children):
        return draft.plan()
    _tell_progress(draft, job)
    newest, old = gangs.current(draft)
    gang = newest.get(None)
    gangs.tell_untold(draft, newest)
    draft.fields |= {"attempt": gangs.highest_attempt(draft), "restarts": gangs.charged(draft)}
    for replaced in old:
        gangs.remove(draft, replaced)
    gang_condition(draft, job)
    if gang is None:
        _first(draft, job, owner, settings)
        return draft.plan()
    if kids.deleted(gang.job):
        draft.again(_SOON_SECONDS)
        return draft.plan()
    paid = gangs.paid_before(draft, owner, gang)
    _describe(draft, owner, gang)
    tell_jobs(draft, [gang.job])
    if queue.mirror(draft, job, [gang.job]):
        begin_work(draft, job)
    if gang.done and _steps_of(gang) >= job.spec.steps:
        steps = job.spec.steps  # whatever Redis said last
        draft.fields["progress"] |= {"step": steps, "summary": f"{steps}/{steps}", "estimatedRemainingSeconds": 0}
        gangs.sweep_groups(draft, [])
        outputs.finalize_training(draft, job, owner)
    elif deadlines.enforce(draft, job):
        pass
    elif gang.done:
        _go_on(draft, job, owner, gang, settings)
    elif gang.over and not gang.told:
        draft.again(_SOON_SECONDS)
    elif gang.over:
        _replace(draft, job, owner, gang, settings, paid=paid)
    else:
        gangs.sweep_groups(draft, [gang.job])
        mend(draft, _as_made_for(job, gang), owner, attempt=gang.attempt)
        tell_readiness(draft, ready=kids.ready(gang.job), wanted=job.spec.workers.nodes_per_replica)
        gangs.tell_running(draft)
    if draft.finished:
        hold(draft, job, [gang.job])
    return draft.plan()


def _first(draft: Draft, job: TrainingJob, owner: Owner, settings: Settings) -> None:
    """No gang is there: the first, or one in place of one that somebody deleted."""
    queue.mirror(draft, job, [])
    begin_work(draft, job)
    _describe(draft, owner, None)
    if deadlines.enforce(draft, job):
        return
    attempt = int(draft.fields["attempt"])
    if owner.child_name(attempt) in gangs.told_of(draft):
        attempt += 1
    if _may_start(draft, job):
        _start(draft, job, owner, settings, attempt=attempt)


def _may_start(draft: Draft, job: TrainingJob) -> bool:
    """Whether the pods of a gang can be placed as the spec asks."""
    required = job.spec.workers.nodes_per_replica > 1 and job.spec.scheduling.gang == "Required"
    return not required or draft.observed.gang.provider != "none"


def _start(
    draft: Draft, job: TrainingJob, owner: Owner, settings: Settings, *, attempt: int, restarted: str = ""
) -> None:
    """One attempt: its spec (steps may have grown), the Service by which its pods meet, and the gang."""
    provider = draft.observed.gang.provider if job.spec.scheduling.gang != "None" else "none"
    name = owner.child_name(attempt)
    draft.applies += companions(job, owner, attempt=attempt)
    placement = place_gang(provider, job, owner, name=name, attempt=attempt)
    draft.applies += placement.objects
    made = gang_job(
        job,
        owner,
        attempt=attempt,
        config_map=name,
        settings=settings,
        restarts=int(draft.fields.get("restarts", 0)),
        restarted=restarted,
        placement=placement,
    )
    draft.applies.append(made)
    draft.fields["attempt"] = attempt
    _describe(draft, owner, gangs.Gang(made, ()))
    tell_jobs(draft, [made])
    gangs.sweep_groups(draft, [made])
    nodes = job.spec.workers.nodes_per_replica
    if not draft.is_true(c.PODS_READY):
        tell_readiness(draft, ready=0, wanted=nodes)


def _replace(draft: Draft, job: TrainingJob, owner: Owner, gang: gangs.Gang, settings: Settings, *, paid: bool) -> None:
    """Charge what the failure costs and start the next attempt, or end the job. Without a provider it waits, uncharged."""
    policy = job.spec.failure_policy
    action, by_rule = gangs.verdict(gang, policy.rules)
    words = kids.told(gang.failure, "a pod of the gang was lost")
    if action in ("FailJob", "FailShard"):
        draft.fail(c.FAILURE_RULE if by_rule else c.BAD_CONFIGURATION, words)
        return
    free = paid or action == "Ignore"
    restarts = int(draft.fields["restarts"]) + (0 if free else 1)
    if restarts > policy.max_restarts:
        draft.fail(c.MAX_RESTARTS_EXCEEDED, f"{policy.max_restarts} restarts were charged, one more would be: {words}")
        return
    attempt = gangs.highest_attempt(draft) + 1
    without = attempt - int((draft.fields.get("checkpoint") or {}).get("attempt", 0))
    if without > policy.max_restarts_without_progress:
        draft.fail(c.NO_PROGRESS, f"{without - 1} restarts in a row brought no new checkpoint: {words}")
        return
    if not _may_start(draft, job):
        return
    restarted = gangs.tell_restart(draft, gang, free=free)
    draft.fields["restarts"] = restarts
    _start(draft, job, owner, settings, attempt=attempt, restarted=restarted)


def _go_on(draft: Draft, job: TrainingJob, owner: Owner, gang: gangs.Gang, settings: Settings) -> None:
    """The attempt did all that it was made for, and the job wants more by now: the next one goes on, for nothing."""
    if _may_start(draft, job):
        message = f"{_steps_of(gang)} steps are done, {job.spec.steps} are wanted by now: the next attempt goes on"
        draft.condition(c.PODS_READY, "False", reason=c.WAITING_FOR_PODS, message=message)
        _start(draft, job, owner, settings, attempt=gangs.highest_attempt(draft) + 1)


def _steps_of(gang: gangs.Gang) -> int:
    """The steps that a gang was made for."""
    return int((gang.job["metadata"].get("annotations") or {}).get(STEPS, "0"))


def _as_made_for(job: TrainingJob, gang: gangs.Gang) -> TrainingJob:
    """The job as the pods of a gang know it, all alike: `steps` may have grown since."""
    return job.model_copy(update={"spec": job.spec.model_copy(update={"steps": _steps_of(gang)})})


def _describe(draft: Draft, owner: Owner, gang: gangs.Gang | None) -> None:
    """One replica, ready or not."""
    nodes = int(gang.job["spec"]["completions"]) if gang else 0
    draft.fields["workers"] = {
        "desired": 1,
        "active": 1 if gang and kids.active(gang.job) else 0,
        "ready": 1 if gang and kids.ready(gang.job) >= nodes else 0,
        "selector": owner.selector,
    }


def _measured(told: TrainingProgress, job: TrainingJob) -> dict[str, Any]:
    """What the leader measured, and what follows from it."""
    numbers = {"loss": told.loss, "throughput": told.throughput, "freezeRatio": told.freeze_ratio}
    found: dict[str, Any] = {name: decimal(value) for name, value in numbers.items() if value is not None}
    if told.throughput is not None and told.throughput >= SLOWEST:
        seconds = job.spec.batch_size / told.throughput
        left = round(max(0, job.spec.steps - told.step) * seconds)
        found |= {"stepSeconds": decimal(seconds), "estimatedRemainingSeconds": left}
    return found


def _tell_progress(draft: Draft, job: TrainingJob) -> None:
    """Set status.progress and status.checkpoint from what the leader wrote last. An attempt begins at the step of the
    checkpoint that it resumes from, so steps may go back."""
    told = [one for one in draft.observed.progress or () if isinstance(one, TrainingProgress)]
    before = dict(draft.fields.get("progress") or {})
    step = min(told[0].step, job.spec.steps) if told else int(before.get("step", 0))
    after = {**before, "step": step, "totalSteps": job.spec.steps, "summary": f"{step}/{job.spec.steps}"}
    if told:
        after |= _measured(told[0], job)
    last = before.pop("lastUpdateTime", None)
    same = {name: value for name, value in after.items() if name != "lastUpdateTime"} == before
    after["lastUpdateTime"] = last if last and same else text_of(draft.now)
    draft.fields["progress"] = after
    checkpoint = told[0].checkpoint if told else None
    known = draft.fields.get("checkpoint") or {}
    if checkpoint is not None and int(known.get("step", 0)) < checkpoint.step <= job.spec.steps:
        draft.fields["checkpoint"] = {**known, **checkpoint.document()}
        message = f"step {checkpoint.step} can be resumed from"
        draft.condition(c.CHECKPOINT_STORED, "True", reason=c.STORED, message=message)
    elif not known:
        draft.condition(c.CHECKPOINT_STORED, "False", reason=c.NO_CHECKPOINT, message="none so far")
