"""The phase: one word for people, derived from the conditions, here and nowhere else. Nothing reads it back."""

from __future__ import annotations

from collections.abc import Sequence

from frazil_jobs.api import conditions as c
from frazil_jobs.api.status import Condition, Phase


def phase_of(conditions: Sequence[Condition], *, work_done: bool = False) -> Phase:
    """The first that holds, from what is final to what is not yet.

    `work_done`: every shard, or the last step, is done, and only the manifest is missing.
    """
    if c.is_true(conditions, c.FAILED):
        return "Failed"
    if c.is_true(conditions, c.COMPLETE):
        return "Complete"
    if c.is_true(conditions, c.SUSPENDED):
        return "Suspended"
    if work_done:
        return "Storing"
    if c.is_true(conditions, c.RESTARTING):
        return "Restarting"
    if c.is_true(conditions, c.PODS_READY):
        return "Running"
    admitted = c.find(conditions, c.QUOTA_RESERVED)
    if admitted is not None and admitted.status == "False":
        return "Queued"
    return "Starting"
