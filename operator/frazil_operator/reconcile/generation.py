"""A GenerationJob, from its object to its end."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, islice
from typing import Any, Final

from frazil_jobs.api import conditions as c
from frazil_jobs.api.generationjob import GenerationJob
from frazil_operator.build.children import gang_job
from frazil_operator.build.labels import Owner, attempt_of
from frazil_operator.gang.placement import place_gang
from frazil_operator.reconcile import children as kids
from frazil_operator.reconcile import deadlines, gangs, inspection, outputs, progress, queue, ranges, shards
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
from frazil_operator.reconcile.plan import Object, Plan
from frazil_operator.reconcile.pods import release_lost, tell_readiness
from frazil_operator.reconcile.stopping import hold
from frazil_operator.settings import Settings

_SOON_SECONDS: Final = 1.0


def reconcile_generation(draft: Draft, job: GenerationJob, owner: Owner, settings: Settings) -> Plan:
    """What to do about a GenerationJob that is neither finished nor being deleted."""
    children = [child for child in draft.observed.of("job") if not kids.deleted(child)]
    outputs.place(draft, job, owner, settings)
    release_lost(draft, settings)
    if stay_stopped(draft, job, children):
        return draft.plan(suspend=True)
    from_child = next((pin for child in draft.observed.of("job") if (pin := kids.pin_of(child))), None)
    pin = inspection.pinned(draft, job, owner, from_child=from_child)
    if pin is None or wait_for_strangers(draft) or stay_refused(draft, job, children):
        return draft.plan()
    if job.spec.workers.nodes_per_replica > 1:
        _gangs(draft, job, owner, pin, settings)
    else:
        _shards(draft, job, owner, pin, children, settings)
    return draft.plan()


def _shards(
    draft: Draft,
    job: GenerationJob,
    owner: Owner,
    pin: Mapping[str, Any],
    children: list[Object],
    settings: Settings,
) -> None:
    gang_condition(draft, job)
    if not children:
        if draft.observed.of("job"):  # deleted by somebody, and not gone yet
            draft.again(_SOON_SECONDS)
            return
        if draft.reason_of(c.OUTPUTS_STORED) not in (c.FINALIZING, c.UPLOAD_FAILED):
            children = [shards.make(draft, job, owner, pin, settings)]
        else:
            remembered = int((draft.fields.get("shards") or {}).get("failedCount", 0))
            outputs.finalize(draft, job, owner, pin, failed_shards=remembered)
            return
    child = children[-1]
    completed, failed = shards.completed_of(child), shards.failed_of(child)
    shards.scale(draft, job, child, pin)
    wanted = shards.parallelism(job, pin)
    if queue.mirror(draft, job, children):
        begin_work(draft, job)
    left = int(pin["shards"]) - ranges.count(completed) - ranges.count(failed)
    over = shards.judge(draft, job, child)
    _describe(draft, job, pin, owner, completed=completed, failed=failed, wanted=max(0, min(wanted, left)))
    draft.fields["workers"] |= {"active": kids.active(child), "ready": kids.ready(child)}
    tell_jobs(draft, children)
    if draft.finished:
        hold(draft, job, children)
        return
    if over:
        _all_ready(draft)
        outputs.finalize(draft, job, owner, pin, failed_shards=ranges.count(failed))
        return
    mend(draft, job, owner, attempt=attempt_of(child))
    tell_readiness(draft, ready=kids.ready(child) + kids.succeeded(child), wanted=min(wanted, int(pin["shards"])))
    draft.condition(c.OUTPUTS_STORED, "False", reason=c.UPLOADING, message="outputs are stored as they are made")
    if deadlines.enforce(draft, job):
        hold(draft, job, children)


def _gangs(draft: Draft, job: GenerationJob, owner: Owner, pin: Mapping[str, Any], settings: Settings) -> None:
    total = int(pin["shards"])
    before = draft.fields.get("shards") or {}
    completed, failed = str(before.get("completed", "")), str(before.get("failed", ""))
    newest, old = gangs.current(draft)
    gangs.tell_untold(draft, newest)
    for replaced in old:
        gangs.remove(draft, replaced)
    attempt, restarts = gangs.highest_attempt(draft), gangs.charged(draft)
    policy = job.spec.failure_policy
    live: dict[int, gangs.Gang] = {}
    broken: dict[int, tuple[gangs.Gang, bool]] = {}
    """Gangs to be replaced, and whether that is free."""
    for unit, gang in sorted((unit, gang) for unit, gang in newest.items() if unit is not None):
        if ranges.contains(completed, unit) or ranges.contains(failed, unit):
            gangs.remove(draft, gang)  # its end is in the status
        elif gang.done:
            completed = ranges.add(completed, [unit])
        elif gang.over and not gang.told:
            live[unit] = gang
            draft.again(_SOON_SECONDS)
        elif gang.over:
            action, by_rule = gangs.verdict(gang, policy.rules)
            if action == "FailJob":
                reason = c.FAILURE_RULE if by_rule else c.BAD_CONFIGURATION
                draft.fail(reason, kids.told(gang.failure, "the failure policy ends the job"))
            elif action == "FailShard" or (action == "Count" and gang.tries >= policy.retries_per_shard):
                failed = ranges.add(failed, [unit])
            else:
                broken[unit] = (gang, action == "Ignore" or gangs.paid_before(draft, owner, gang))
        else:
            live[unit] = gang
    known = ranges.add(ranges.union(completed, failed), [unit for unit in newest if unit is not None])
    if attempt == 0 and ranges.count(known) <= gangs.begun(draft, owner, newest):
        attempt = 1  # somebody deleted a gang: its pods may still run, so its name is not used again
    draft.fields |= {"attempt": attempt, "restarts": restarts}
    allowed = policy.max_failed_shards or 0
    if not draft.finished and ranges.count(failed) > allowed:
        problem = kids.worst_failure(draft.observed.of("pod"))
        draft.fail(
            c.MAX_FAILED_SHARDS,
            f"{ranges.count(failed)} shards have failed, {allowed} may: {kids.told(problem, failed)}",
        )
    children = [gang.job for gang in live.values()]
    slots = max(0, job.spec.workers.replicas - len(live))
    left = total - ranges.count(completed) - ranges.count(failed)
    _describe(
        draft, job, pin, owner, completed=completed, failed=failed, wanted=max(0, min(job.spec.workers.replicas, left))
    )
    nodes = job.spec.workers.nodes_per_replica
    draft.fields["workers"] |= {
        "active": sum(1 for gang in live.values() if kids.active(gang.job)),
        "ready": sum(1 for gang in live.values() if kids.ready(gang.job) >= nodes),
    }
    gang_condition(draft, job)
    waiting = job.spec.scheduling.gang == "Required" and draft.observed.gang.provider == "none"
    units = (
        []
        if waiting or not left
        else _next_units(total, slots, taken=live, again=broken, completed=completed, failed=failed)
    )
    charges = sum(1 for unit in units if unit in broken and not broken[unit][1])
    if not draft.finished and restarts + charges > policy.max_restarts:
        draft.fail(
            c.MAX_RESTARTS_EXCEEDED,
            f"{restarts} restarts were charged, {charges} more would be, and {policy.max_restarts} may be",
        )
    if draft.finished or deadlines.enforce(draft, job):
        tell_jobs(draft, children)
        hold(draft, job, children)
        return
    if left == 0:
        tell_jobs(draft, children)
        gangs.sweep_groups(draft, children)
        _all_ready(draft)
        outputs.finalize(draft, job, owner, pin, failed_shards=ranges.count(failed))
        return
    mend(draft, job, owner, attempt=0, anew=bool(units))  # all gangs share what the first one's pods were given
    made = _make_gangs(draft, job, owner, pin, settings, units=units, broken=broken)
    waiting_gangs = [gang.job for unit, (gang, _) in broken.items() if unit not in units]
    tell_jobs(draft, [*waiting_gangs, *children, *made])
    gangs.sweep_groups(draft, [*children, *made])
    if queue.mirror(draft, job, children):
        begin_work(draft, job)
    ready = sum(kids.ready(gang.job) for gang in live.values())
    tell_readiness(draft, ready=ready, wanted=nodes * max(1, len(live) + len(made)))
    gangs.tell_running(draft)
    draft.condition(c.OUTPUTS_STORED, "False", reason=c.UPLOADING, message="outputs are stored as they are made")
    if deadlines.enforce(draft, job):
        hold(draft, job, children)


def _make_gangs(
    draft: Draft,
    job: GenerationJob,
    owner: Owner,
    pin: Mapping[str, Any],
    settings: Settings,
    *,
    units: list[int],
    broken: Mapping[int, tuple[gangs.Gang, bool]],
) -> list[Object]:
    """A gang for each of `units`; what it replaces is charged to it."""
    attempt, restarts = int(draft.fields["attempt"]), int(draft.fields["restarts"])
    provider = draft.observed.gang.provider if job.spec.scheduling.gang != "None" else "none"
    made: list[Object] = []
    for unit in units:
        tries, restarted = 0, ""
        if unit in broken:
            gang, free = broken[unit]
            cost = 0 if free else 1
            restarts, tries = restarts + cost, gang.tries + cost
            restarted = gangs.tell_restart(draft, gang, free=free)
        if unit in broken or attempt:
            attempt += 1
        placement = place_gang(provider, job, owner, name=owner.child_name(attempt, unit), attempt=attempt)
        draft.applies += placement.objects
        made.append(
            gang_job(
                job,
                owner,
                attempt=attempt,
                config_map=owner.child_name(0),
                settings=settings,
                pin=pin,
                shard=unit,
                tries=tries,
                restarts=restarts,
                restarted=restarted,
                placement=placement,
            )
        )
    draft.applies += made
    draft.fields |= {"attempt": attempt, "restarts": restarts}
    return made


def _next_units(
    total: int, slots: int, *, taken: Mapping[int, Any], again: Mapping[int, Any], completed: str, failed: str
) -> list[int]:
    """Shards to start now: those to be tried again first, then the next that nobody has begun."""
    fresh = (
        unit for unit in ranges.gaps(ranges.union(completed, failed), total) if unit not in taken and unit not in again
    )
    return list(islice(chain(sorted(again), fresh), slots))


def _describe(
    draft: Draft, job: GenerationJob, pin: Mapping[str, Any], owner: Owner, *, completed: str, failed: str, wanted: int
) -> None:
    progress.tell(draft, job, pin, completed=completed, failed=failed)
    draft.fields["workers"] = {"desired": wanted, "active": 0, "ready": 0, "selector": owner.selector}


def _all_ready(draft: Draft) -> None:
    if not draft.is_true(c.PODS_READY):
        draft.condition(c.PODS_READY, "True", reason=c.ALL_READY, message="all pods have run")
