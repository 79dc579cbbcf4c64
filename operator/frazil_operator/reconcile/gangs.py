"""Shape two: a replica is several pods, wanted together or not at all.

One Job a gang; any rank that is lost fails its Job, and the next attempt takes its place. A TrainingJob is one gang; a
GenerationJob has one for each shard, as many at once as there are replicas.

Nothing is charged twice: a failure is charged by the plan that makes the gang in its place, and the count is on that gang,
so it outlives a crash between making it and writing the status. A gang that can't be replaced yet waits, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from frazil_jobs.api import conditions as c
from frazil_jobs.api.common import GangFailureRule, ShardFailureRule
from frazil_jobs.base.exits import CONFIG, DATAERR
from frazil_operator.build.labels import RESTARTS, TRY, attempt_of, shard_of
from frazil_operator.reconcile import children as kids
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
    """Names of the gangs that the status tells of, there or not. One that somebody deleted may still have pods: its name
    is not used again."""
    return frozenset(str(job["name"]) for job in draft.fields.get("jobs") or ())


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
    """What a gang's failure costs, and whether a rule of the job says so. Its own rules come first, then 78, 65 and
    disruptions; anything else is one restart."""
    codes = {found.exit_code for pod in gang.pods if (found := kids.failure(pod)) is not None}
    for rule in rules:
        if (rule.on_disruption and gang.disrupted) or codes & set(rule.on_exit_codes or ()):
            return rule.action, True
    for code in (CONFIG, DATAERR):
        if code in codes:
            return _DEFAULTS[code], False
    return ("Ignore" if gang.disrupted else "Count"), False


def tell_restart(draft: Draft, gang: Gang, *, free: bool) -> None:
    """Say that an attempt is being replaced, and why."""
    reason = c.DISRUPTED if free else c.WORKER_FAILED
    words = kids.told(gang.failure, "a pod of the gang was lost")
    draft.condition(c.RESTARTING, "True", reason=reason, message=f"attempt {gang.attempt}: {words}")
    draft.condition(c.PODS_READY, "False", reason=c.WAITING_FOR_PODS, message="the next attempt is being started")


def tell_untold(
    draft: Draft,
    newest: Mapping[int | None, Gang],
    old: Sequence[Gang],
    rules: Sequence[ShardFailureRule | GangFailureRule],
) -> None:
    """Say what a plan did that made gangs in place of others and did not come to write the status."""
    known = int(draft.fields.get("attempt", 0))
    for gang in old:
        if newest[gang.unit].attempt > known:
            tell_restart(draft, gang, free=verdict(gang, rules)[0] == "Ignore")


def tell_running(draft: Draft) -> None:
    """The attempt that replaced another runs."""
    if draft.is_true(c.RESTARTING) and draft.is_true(c.PODS_READY):
        attempt = draft.fields.get("attempt", 0)
        draft.condition(c.RESTARTING, "False", reason=c.RESTARTED, message=f"attempt {attempt} runs")
