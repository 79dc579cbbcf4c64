"""How far a GenerationJob is: exact for shards that are done, as Redis has it for those at work. It never goes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.outputs.progress import ShardProgress
from frazil_operator.reconcile import ranges
from frazil_operator.reconcile.draft import Draft
from frazil_operator.reconcile.times import text_of

_FRESH_SECONDS: Final = 60.0
"""A shard that said nothing for so long adds no rate."""
SLOWEST: Final = 1e-6
"""A rate below this, a second, says nothing of the end."""


def tell(draft: Draft, job: GenerationJob, pin: Mapping[str, Any], *, completed: str, failed: str) -> None:
    """Set status.shards and status.progress; `lastUpdateTime` moves only when something else does."""
    shards, each = int(pin["shards"]), job.spec.images_per_prompt
    draft.fields["shards"] = {
        "total": shards,
        "completed": ranges.shortened(completed),
        "failed": ranges.shortened(failed),
        "completedCount": ranges.count(completed),
        "failedCount": ranges.count(failed),
    }
    draft.fields["prompts"] = {"count": int(pin["count"]), "sha256": str(pin["sha256"])}
    before = dict(draft.fields.get("progress") or {})
    total = int(pin["count"]) * each
    done = outputs_of(completed, pin) * each
    generated = stored = done
    given_up = outputs_of(failed, pin) * each
    rate = 0.0
    for one in draft.observed.progress or ():
        if not isinstance(one, ShardProgress) or one.shard >= shards or ranges.contains(completed, one.shard):
            continue
        generated += one.generated
        stored += one.stored
        if ranges.contains(failed, one.shard):
            given_up -= one.stored
        elif one.state == "Running" and draft.now.timestamp() - one.updated_at < _FRESH_SECONDS:
            rate += one.images_per_second
    stored = min(total, max(stored, int(before.get("stored", 0))))
    generated = min(total, max(generated, stored, int(before.get("generated", 0))))
    after: dict[str, Any] = {
        "total": total,
        "generated": generated,
        "stored": stored,
        "failed": max(0, given_up),
        "percent": stored * 100 // total if total else 0,
        "summary": f"{stored}/{total}",
    }
    if rate >= SLOWEST:
        after["imagesPerSecond"] = decimal(rate)
        after["estimatedRemainingSeconds"] = round(max(0, total - stored) / rate)
    last = before.pop("lastUpdateTime", None)
    after["lastUpdateTime"] = last if last and before == after else text_of(draft.now)
    draft.fields["progress"] = after


def decimal(value: float) -> str:
    """A measured number, as the status has it."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def outputs_of(shards: str, pin: Mapping[str, Any]) -> int:
    """Prompts of the shards that a text names."""
    last = int(pin["shards"]) - 1
    per_shard, count = int(pin["per_shard"]), int(pin["count"])
    found = 0
    for first, end in ranges.parse(shards):
        found += (min(end, last) - first + 1) * per_shard
        if end >= last:
            found -= per_shard * int(pin["shards"]) - count
    return max(0, found)
