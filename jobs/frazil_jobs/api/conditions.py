"""Conditions of a job: their types, their reasons, and how one is set.

Names follow batch/v1 (`Complete`, not `Completed`). At most one of Complete and Failed is True, and then it stays so.
Each type is followed by the reasons that it may have; a word that several types share is one constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from frazil_jobs.api.status import Condition, ConditionStatus

PROMPTS_INSPECTED: Final = "PromptsInspected"
"""Every row of the prompts was validated and counted, and their sha256 is pinned. GenerationJob only."""
INSPECTED: Final = "Inspected"
"""True."""
INSPECTING: Final = "Inspecting"
"""The task was asked for; its result isn't there yet."""
WORKER_SILENT: Final = "WorkerSilent"
"""It was asked for minutes ago, and the worker Deployment hasn't answered; asked again."""
INVALID_PROMPTS: Final = "InvalidPrompts"
"""A row can't be used; the message names file and line. Fails the job."""
PROMPTS_UNREACHABLE: Final = "PromptsUnreachable"
"""The store or the ConfigMap doesn't answer; tried again."""
PROMPTS_CHANGED: Final = "PromptsChanged"
"""The file no longer has the sha256 that was pinned."""

SUSPENDED: Final = "Suspended"
"""No pods are wanted."""
USER_REQUESTED: Final = "UserRequested"
"""spec.suspend is true."""
RESUMED: Final = "Resumed"
"""It was true, and is false again."""

QUOTA_RESERVED: Final = "QuotaReserved"
"""A queue admitted the job, or none is in use."""
ADMITTED: Final = "Admitted"
"""By the queue."""
NO_QUEUE: Final = "NoQueue"
"""None is in use."""
WAITING_FOR_QUOTA: Final = "WaitingForQuota"
"""The queue has no room yet; the message is Kueue's own."""
TOPOLOGY_PLACEMENT_FAILED: Final = "TopologyPlacementFailed"
"""There is quota, but no set of nodes that fits together."""
PREEMPTED: Final = "Preempted"
"""The queue gave the quota to another job."""

GANG_SCHEDULED: Final = "GangScheduled"
"""The pods of every replica are placed together, or need not be."""
SCHEDULED: Final = "Scheduled"
"""All are placed; the message names the provider."""
UNSCHEDULABLE: Final = "Unschedulable"
"""They don't fit now; the message is the scheduler's own. Also of PodsReady."""
NOT_REQUIRED: Final = "NotRequired"
"""One pod a replica, or gang: None."""
PROVIDER_UNAVAILABLE: Final = "ProviderUnavailable"
"""The API server serves no gang scheduling. With gang: Auto the pods are placed one by one."""

PODS_READY: Final = "PodsReady"
"""All pods of the attempt have been ready once."""
ALL_READY: Final = "AllReady"
"""True."""
WAITING_FOR_PODS: Final = "WaitingForPods"
"""They are being made, placed or started."""
IMAGE_PULL: Final = "ImagePull"
"""An image can't be pulled; the message names it."""
CONTAINER_NOT_MADE: Final = "ContainerNotMade"
"""The kubelet can't make a container (a Secret that isn't there, a setting that is not allowed); the message is its own."""
REFUSED: Final = "Refused"
"""The API server refuses an object of the job (a quota, a policy), or somebody else's has its name; tried again."""

RESTARTING: Final = "Restarting"
"""An attempt is being replaced by the next."""
WORKER_FAILED: Final = "WorkerFailed"
"""A pod ended with an error, or was deleted by somebody: charged."""
DISRUPTED: Final = "Disrupted"
"""A pod was evicted, preempted, or lost with its node: free of charge."""
RESTARTED: Final = "Restarted"
"""False: the next attempt runs."""

OUTPUTS_STORED: Final = "OutputsStored"
"""The manifest (of a TrainingJob: the trained model) is in the store."""
ALL_STORED: Final = "AllStored"
"""True."""
UPLOADING: Final = "Uploading"
"""Outputs are made and arrive."""
FINALIZING: Final = "Finalizing"
"""Everything is made and uploaded; it's being recounted from the store, and the manifest written."""
UPLOAD_FAILED: Final = "UploadFailed"
"""The store refused or didn't answer; tried again."""
REMOVAL_FAILED: Final = "RemovalFailed"
"""The job is being deleted with output.whenDeleted: Delete, and its outputs can't be removed; tried again."""

CHECKPOINT_STORED: Final = "CheckpointStored"
"""A committed checkpoint is in the store. TrainingJob only."""
STORED: Final = "Stored"
"""True; status.checkpoint says which."""
NO_CHECKPOINT: Final = "NoCheckpoint"
"""None so far."""

COMPLETE: Final = "Complete"
"""Done, for good."""
SUCCEEDED: Final = "Succeeded"
"""Every output is stored."""
SUCCESS_POLICY_MET: Final = "SuccessPolicyMet"
"""Not every output is stored, but as many as successPolicy asks."""

FAILED: Final = "Failed"
"""Failed, for good. Also has the reasons InvalidPrompts and PromptsChanged."""
BAD_CONFIGURATION: Final = "BadConfiguration"
"""A pod ended with exit code 78, or the object itself can't work; the message names the field."""
MAX_RESTARTS_EXCEEDED: Final = "MaxRestartsExceeded"
"""One more than failurePolicy.maxRestarts was charged."""
NO_PROGRESS: Final = "NoProgress"
"""failurePolicy.maxRestartsWithoutProgress restarts in a row without a new checkpoint."""
MAX_FAILED_SHARDS: Final = "MaxFailedShards"
"""One more shard than failurePolicy.maxFailedShards has failed."""
FAILURE_RULE: Final = "FailureRule"
"""A rule of failurePolicy.rules said FailJob."""
PRE_RUNNING_DEADLINE_EXCEEDED: Final = "PreRunningDeadlineExceeded"
"""preRunningDeadlineSeconds passed before the pods were ready."""
DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
"""activeDeadlineSeconds passed."""
OUTPUTS_LOST: Final = "OutputsLost"
"""The recount found fewer outputs in the store than were acknowledged."""

TERMINAL: Final = (COMPLETE, FAILED)

REASONS: Final[dict[str, tuple[str, ...]]] = {
    PROMPTS_INSPECTED: (
        INSPECTED,
        INSPECTING,
        WORKER_SILENT,
        INVALID_PROMPTS,
        PROMPTS_UNREACHABLE,
        PROMPTS_CHANGED,
    ),
    SUSPENDED: (USER_REQUESTED, RESUMED),
    QUOTA_RESERVED: (ADMITTED, NO_QUEUE, WAITING_FOR_QUOTA, TOPOLOGY_PLACEMENT_FAILED, PREEMPTED),
    GANG_SCHEDULED: (SCHEDULED, UNSCHEDULABLE, NOT_REQUIRED, PROVIDER_UNAVAILABLE),
    PODS_READY: (ALL_READY, WAITING_FOR_PODS, UNSCHEDULABLE, IMAGE_PULL, CONTAINER_NOT_MADE, REFUSED),
    RESTARTING: (WORKER_FAILED, DISRUPTED, RESTARTED),
    OUTPUTS_STORED: (ALL_STORED, UPLOADING, FINALIZING, UPLOAD_FAILED, REMOVAL_FAILED),
    CHECKPOINT_STORED: (STORED, UPLOADING, NO_CHECKPOINT),
    COMPLETE: (SUCCEEDED, SUCCESS_POLICY_MET),
    FAILED: (
        MAX_RESTARTS_EXCEEDED,
        NO_PROGRESS,
        MAX_FAILED_SHARDS,
        FAILURE_RULE,
        DEADLINE_EXCEEDED,
        PRE_RUNNING_DEADLINE_EXCEEDED,
        INVALID_PROMPTS,
        PROMPTS_CHANGED,
        BAD_CONFIGURATION,
        OUTPUTS_LOST,
    ),
}
"""The words a condition's reason may be, by type."""


def find(conditions: Sequence[Condition], condition_type: str) -> Condition | None:
    """The condition of a type, if it's there."""
    return next((condition for condition in conditions if condition.type == condition_type), None)


def is_true(conditions: Sequence[Condition], condition_type: str) -> bool:
    """Whether the condition of a type is True."""
    found = find(conditions, condition_type)
    return found is not None and found.status == "True"


def finished(conditions: Sequence[Condition]) -> bool:
    """Whether the job is Complete or Failed; nothing but its deletion follows."""
    return any(is_true(conditions, terminal) for terminal in TERMINAL)


def set_condition(
    conditions: Sequence[Condition],
    condition_type: str,
    status: ConditionStatus,
    *,
    reason: str,
    message: str = "",
    generation: int | None = None,
    now: str,
) -> list[Condition]:
    """`conditions` with one of them set, in their order.

    `lastTransitionTime` becomes `now` (RFC 3339) only when the status changes. Once a job is finished neither terminal
    condition changes any more. Raises ValueError for a type that there isn't, or a reason that the type doesn't have.
    """
    if reason not in REASONS.get(condition_type, ()):
        raise ValueError(f"{condition_type} has no reason {reason!r}")
    before = find(conditions, condition_type)
    if condition_type in TERMINAL and finished(conditions):
        return list(conditions)
    after = Condition(
        type=condition_type,
        status=status,
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before is not None and before.status == status else now,
        reason=reason,
        message=message,
    )
    if before is None:
        return [*conditions, after]
    return [after if condition.type == condition_type else condition for condition in conditions]
