"""Conditions of a job: their types, their reasons, and how one is set.

Names follow batch/v1 (`Complete`, not `Completed`). Exactly one of Complete and Failed may be True, and stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from frazil_jobs.api.status import Condition, ConditionStatus

PROMPTS_INSPECTED: Final = "PromptsInspected"
"""Every row of the prompts was validated and counted, and their sha256 is pinned. GenerationJob only."""
SUSPENDED: Final = "Suspended"
"""No pods are wanted."""
QUOTA_RESERVED: Final = "QuotaReserved"
"""A queue admitted the job, or none is in use."""
GANG_SCHEDULED: Final = "GangScheduled"
"""The pods of every replica are placed together, or need not be."""
PODS_READY: Final = "PodsReady"
"""All pods of the attempt have been ready once."""
RESTARTING: Final = "Restarting"
"""An attempt is being replaced."""
OUTPUTS_STORED: Final = "OutputsStored"
"""The manifest (of a TrainingJob: the trained model) is in the store."""
CHECKPOINT_STORED: Final = "CheckpointStored"
"""A committed checkpoint is in the store. TrainingJob only."""
COMPLETE: Final = "Complete"
"""Done, for good."""
FAILED: Final = "Failed"
"""Failed, for good."""

TERMINAL: Final = (COMPLETE, FAILED)

REASONS: Final[dict[str, tuple[str, ...]]] = {
    PROMPTS_INSPECTED: ("Inspected", "Inspecting", "InvalidPrompts", "PromptsUnreachable", "PromptsChanged"),
    SUSPENDED: ("UserRequested", "Resumed"),
    QUOTA_RESERVED: ("Admitted", "NoQueue", "WaitingForQuota", "TopologyPlacementFailed", "Preempted"),
    GANG_SCHEDULED: ("Scheduled", "Unschedulable", "NotRequired", "ProviderUnavailable"),
    PODS_READY: ("AllReady", "WaitingForPods", "ImagePull"),
    RESTARTING: ("WorkerFailed", "Disrupted", "RankReplaced", "Restarted"),
    OUTPUTS_STORED: ("AllStored", "Uploading", "Finalizing", "UploadFailed"),
    CHECKPOINT_STORED: ("Stored", "Uploading", "None"),
    COMPLETE: ("Succeeded", "SuccessPolicyMet"),
    FAILED: (
        "MaxRestartsExceeded",
        "MaxFailedShards",
        "DeadlineExceeded",
        "PreRunningDeadlineExceeded",
        "InvalidPrompts",
        "BadConfiguration",
        "OutputsLost",
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
    """`conditions` with one of them set.

    `lastTransitionTime` becomes `now` (RFC 3339) only when the status changes. A terminal condition that is True stays as it
    is, and the other terminal one can't become True. Raises ValueError for a reason that the type doesn't have.
    """
    if reason not in REASONS[condition_type]:
        raise ValueError(f"{condition_type} has no reason {reason!r}")
    before = find(conditions, condition_type)
    if condition_type in TERMINAL and finished(conditions):
        return list(conditions)
    changed = before is None or before.status != status
    after = Condition(
        type=condition_type,
        status=status,
        observed_generation=generation,
        last_transition_time=now if changed or before is None else before.last_transition_time,
        reason=reason,
        message=message,
    )
    if before is None:
        return [*conditions, after]
    return [after if condition.type == condition_type else condition for condition in conditions]
