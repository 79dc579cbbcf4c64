"""Shape two: a replica is several pods, wanted together or not at all.

One Job a gang; any rank that is lost fails its Job, and the next attempt takes its place. A TrainingJob is one gang; a
GenerationJob has one for each shard, as many at once as there are replicas.

Nothing is charged twice: a failure is charged by the plan that makes the gang in its place, and the count is on that gang,
so it outlives a crash between making it and writing the status. A gang that can't be replaced yet waits, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from frazil_jobs.api import conditions as c
from frazil_jobs.api.common import GangFailureRule, ShardFailureRule
from frazil_jobs.base.exits import CONFIG, DATAERR
from frazil_operator.build.labels import RESTARTED, RESTARTS, TRY, Owner, attempt_of, shard_of
from frazil_operator.build.pod import COMPUTE
from frazil_operator.reconcile import children as kids
from frazil_operator.reconcile import ranges
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.plan import Object

Action = Literal["FailJob", "FailShard", "Count", "Ignore"]
_DEFAULTS: Final[dict[int, Action]] = {CONFIG: "FailJob", DATAERR: "FailShard"}


@dataclass(frozen=True)
class Gang:
    """One Job that is a gang."""

    job: Object
    pods: tuple[Object, ...]

    @property
    def unit(self) -> int | None:
        """Its shard; None for the gang of a TrainingJob."""
        return shard_of(self.job)

    @property
    def attempt(self) -> int:
        """Job-wide: each gang that replaces another has a higher one."""
        return attempt_of(self.job)

    @property
    def tries(self) -> int:
        """Charged tries of its shard before it."""
        return int(self.job["metadata"].get("labels", {}).get(TRY, "0"))

    @property
    def over(self) -> bool:
        """Whether it has failed."""
        return kids.failed(self.job) is not None

    @property
    def done(self) -> bool:
        """Whether it ended well."""
        return kids.complete(self.job)

    @property
    def told(self) -> bool:
        """Whether it can be judged: the pod that failed is seen, or all have gone. (One watch may be behind the other.)"""
        return not self.pods or self.disrupted or self.failure is not None

    @property
    def failure(self) -> kids.Failure | None:
        """What its pods say."""
        return kids.worst_failure(self.pods)

    @property
    def disrupted(self) -> bool:
        """Whether it was taken down from outside: evicted, preempted, or its node lost. Its pods may have gone; the Job's
        own word stays (a gang's only failure rule is for disruptions)."""
        told = (kids.failed(self.job) or {}).get("reason") == "PodFailurePolicy"
        return told or any(kids.condition(pod, "DisruptionTarget") is not None for pod in self.pods)


def current(draft: Draft) -> tuple[dict[int | None, Gang], list[Gang]]:
    """The newest gang of each unit, and those that newer ones have replaced, oldest first."""
    newest: dict[int | None, Gang] = {}
    old: list[Gang] = []
    for job in sorted(draft.observed.of("job"), key=attempt_of):
        pods = tuple(pod for pod in draft.observed.of("pod") if kids.owned_by(pod, job))
        gang = Gang(job, pods)
        if gang.unit in newest:
            old.append(newest[gang.unit])
        newest[gang.unit] = gang
    return newest, old


def charged(draft: Draft) -> int:
    """Restarts that were charged so far."""
    labels = [int(job["metadata"].get("labels", {}).get(RESTARTS, "0")) for job in draft.observed.of("job")]
    return max([int(draft.fields.get("restarts", 0)), *labels])


def told_of(draft: Draft) -> frozenset[str]:
    """Names of the gangs that the status tells of, there or not."""
    return frozenset(str(job["name"]) for job in draft.fields.get("jobs") or ())


def begun(draft: Draft, owner: Owner, newest: Mapping[int | None, Gang]) -> int:
    """The last shard that a gang was ever made for; -1 for none. Shards are begun in order, so one up to it that has no gang
    has lost it: somebody deleted it, its pods may still run, and its name is not used again."""
    told = {int(str(job["name"]).rpartition("-")[2]) for job in draft.fields.get("jobs") or () if _of_shard(owner, job)}
    counts = draft.fields.get("shards") or {}
    ended = (ranges.last(str(counts.get(name, ""))) for name in ("completed", "failed"))
    return max([-1, *told, *ended, *(unit for unit in newest if unit is not None)])


def _of_shard(owner: Owner, job: Mapping[str, Any]) -> bool:
    name, attempt = str(job["name"]), int(job.get("attempt", 0))
    unit = name.rpartition("-")[2]
    return unit.isdecimal() and name == owner.child_name(attempt, int(unit))


def remove(draft: Draft, gang: Gang) -> None:
    """Delete a gang's Job, unless it's on its way."""
    if not kids.deleted(gang.job):
        draft.delete(gang.job)


def sweep_groups(draft: Draft, keep: Iterable[Object]) -> None:
    """Delete the PodGroups of gangs that are over; `keep`: the Jobs that run, and those just made."""
    names = {job["metadata"]["name"] for job in keep}
    for group in draft.observed.of("podgroup"):
        if group["metadata"]["name"] not in names and not kids.deleted(group):
            draft.delete(group)


def highest_attempt(draft: Draft) -> int:
    """The highest attempt that was ever made."""
    return max([int(draft.fields.get("attempt", 0)), *(attempt_of(job) for job in draft.observed.of("job"))])


def verdict(gang: Gang, rules: Sequence[ShardFailureRule | GangFailureRule]) -> tuple[Action, bool]:
    """What a gang's failure costs, and whether a rule of the job says so.

    The job's own rules come first, and are about the GPU container; then 78 and 65 of any container, and disruptions;
    anything else is one restart.
    """
    failures = [found for pod in gang.pods if (found := kids.failure(pod)) is not None]
    own = {found.exit_code for found in failures if found.container == COMPUTE}
    for rule in rules:
        if (rule.on_disruption and gang.disrupted) or own & set(rule.on_exit_codes or ()):
            return rule.action, True
    for code in (CONFIG, DATAERR):
        if any(found.exit_code == code for found in failures):
            return _DEFAULTS[code], False
    return ("Ignore" if gang.disrupted else "Count"), False


def paid_before(draft: Draft, owner: Owner, gang: Gang) -> bool:
    """Whether the status tells of a gang that was made in place of this one (and that somebody deleted)."""
    for told in draft.fields.get("jobs") or ():
        attempt = int(told.get("attempt", 0))
        if attempt > gang.attempt and told["name"] == owner.child_name(attempt, gang.unit):
            return True
    return False


def tell_restart(draft: Draft, gang: Gang, *, free: bool) -> str:
    """Say that an attempt is being replaced, and why. The words are also for the gang that is made in its place."""
    reason = c.DISRUPTED if free else c.WORKER_FAILED
    words = f"attempt {gang.attempt}: {kids.told(gang.failure, 'a pod of the gang was lost')}"
    _restarting(draft, reason, words)
    return f"{reason}: {words}"


def _restarting(draft: Draft, reason: str, words: str) -> None:
    draft.condition(c.RESTARTING, "True", reason=reason, message=words)
    draft.condition(c.PODS_READY, "False", reason=c.WAITING_FOR_PODS, message="the next attempt is being started")


def tell_untold(draft: Draft, newest: Mapping[int | None, Gang]) -> None:
    """Say what a plan did that made gangs in place of others and did not come to write the status."""
    known = int(draft.fields.get("attempt", 0))
    for gang in newest.values():
        said = (gang.job["metadata"].get("annotations") or {}).get(RESTARTED)
        if said and gang.attempt > known:
            reason, _, words = said.partition(": ")
            _restarting(draft, reason, words)


def tell_running(draft: Draft) -> None:
    """The attempt that replaced another runs."""
    if draft.is_true(c.RESTARTING) and draft.is_true(c.PODS_READY):
        attempt = draft.fields.get("attempt", 0)
        draft.condition(c.RESTARTING, "False", reason=c.RESTARTED, message=f"attempt {attempt} runs")
