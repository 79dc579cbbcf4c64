"""The phase: one word for people, derived from the conditions, here and nowhere else. Nothing reads it back."""

from __future__ import annotations

from collections.abc import Sequence

from frazil_jobs.api import conditions as c
from frazil_jobs.api.status import Condition, Phase


def phase_of(conditions: Sequence[Condition], *, suspend: bool = False) -> Phase:
    """The first that holds, from what is final to what is not yet.

    `suspend` is the spec's: the word is right as soon as no pods are wanted, before the last of them has ended.
    """
    if c.is_true(conditions, c.FAILED):
        return "Failed"
    if c.is_true(conditions, c.COMPLETE):
        return "Complete"
    if suspend or c.is_true(conditions, c.SUSPENDED):
        return "Suspended"
    if _reason_against(conditions, c.OUTPUTS_STORED) in (c.FINALIZING, c.UPLOAD_FAILED) or c.is_true(
        conditions, c.OUTPUTS_STORED
    ):
        return "Storing"
    if c.is_true(conditions, c.RESTARTING):
        return "Restarting"
    if c.is_true(conditions, c.PODS_READY):
        return "Running"
    if _reason_against(conditions, c.QUOTA_RESERVED):
        return "Queued"
    return "Starting"


def _reason_against(conditions: Sequence[Condition], condition_type: str) -> str | None:
    """The reason of a condition that is False; None when it isn't, or isn't there."""
    found = c.find(conditions, condition_type)
    return found.reason if found is not None and found.status == "False" else None
