"""What `frazil plan` finds out about a TrainingJob: one object, and every problem with it, before a device is taken.

The fields of the object are documented in `plan.command`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from frazil_cli.trainingplan.times import Times, times_of
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import FrazilError
from frazil_jobs.inputs.access import Access
from frazil_jobs.training.planning import comparison, noise, program, simulator
from frazil_jobs.training.planning.drawing import Panel
from frazil_jobs.training.planning.estimate import Device, microbatch_size
from frazil_jobs.training.planning.models import Cut
from frazil_jobs.training.planning.partition import cut
from frazil_jobs.training.planning.program import FreezingPlan, FreezingSettings
from frazil_jobs.training.planning.schedules import ScheduleOrder, microbatches_held, order_of
from frazil_jobs.training.planning.timings import Timings

_NOISY_TIMES: Final = 2_000_000
SIGMA: Final = 0.03
"""Noise of an action's time that the spread of a step is shown for."""


@dataclass
class TrainingPlan:
    """The object, what is wrong, and the timelines to draw."""

    job: TrainingJob
    document: dict[str, Any] = field(default_factory=dict)
    problems: list[FrazilError] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)


def make_training_plan(
    job: TrainingJob, *, base_dir: Path, access: Access, timings: Path | None, device: Device, compare: bool
) -> TrainingPlan:
    """Plan a job that was loaded from a file in `base_dir`. `timings`: a file of recorded ones; `device`: what is assumed
    for estimated ones; `compare`: also every other schedule."""
    plan = TrainingPlan(job)
    parallelism = job.spec.parallelism
    plan.document = {
        "name": job.metadata.name,
        "namespace": job.metadata.namespace,
        "kind": job.kind,
        "task": job.spec.task,
        "model": {"uri": job.spec.model.uri, "blocks": None},
        "batch": {
            "size": job.spec.batch_size,
            "accumulation": job.spec.accumulation,
            "microbatches": parallelism.microbatches,
            "microbatchSize": microbatch_size(job.spec),
        },
        **dict.fromkeys(("ranks", "schedule", "timings", "step", "freezing", "comparison")),
        "cluster": _cluster(job),
    }
    try:
        order = order_of(parallelism.schedule, ranks=parallelism.pipeline, microbatches=parallelism.microbatches)
        times = times_of(job, order, base_dir=base_dir, access=access, timings=timings, device=device)
        _fill(plan, order, times, compare=compare)
    except FrazilError as error:
        plan.problems.append(error)
    return plan


def problems_of(plan: TrainingPlan) -> list[dict[str, Any]]:
    """Every problem, as JSON."""
    return [
        {"field": problem.field, "message": problem.message, "remedy": problem.remedy, "exitCode": problem.exit_code}
        for problem in plan.problems
    ]


def _fill(plan: TrainingPlan, order: ScheduleOrder, times: Times, *, compare: bool) -> None:
    job, document = plan.job, plan.document
    settings = FreezingSettings.of(job.spec.freezing) if job.spec.freezing.method == "Timely" else None
    document["model"]["blocks"] = times.blocks
    held = cut(job.spec.parallelism.partition, times.model, order, settings)
    timings = times.recorded or times.model.timings(held, order)
    document["ranks"] = _ranks(job, order, held if times.blocks and not times.recorded else None)
    document["schedule"] = {
        "name": job.spec.parallelism.schedule,
        "stages": order.stages,
        "partition": job.spec.parallelism.partition,
        "blocks": _blocks(times, held),
        "microbatchesHeld": list(microbatches_held(order)),
    }
    document["timings"] = {
        "provenance": timings.provenance,
        "source": times.source,
        "relative": times.relative,
        "hopSeconds": None if times.relative else max(timings.hop_seconds, default=0.0),
    }
    made = program.solve(order, timings, settings) if settings else program.plan_of(order, timings, {})
    used = timings.stage_averaged() if settings and settings.stage_averaged else timings
    document["step"] = _step(plan, order, used, made, times)
    document["freezing"] = _freezing(job, made, settings)
    if compare:
        document["comparison"] = _comparison(job, times, settings)


def _ranks(job: TrainingJob, order: ScheduleOrder, held: Cut | None) -> dict[str, Any]:
    """The grid: the ranks of one pipeline are neighbours, and a replica follows the other."""
    parallelism = job.spec.parallelism
    grid = []
    for rank in range(parallelism.pipeline * parallelism.data):
        replica, place = divmod(rank, parallelism.pipeline)
        stages = order.placement.stages_of(place)
        blocks = [[held.bounds[stage], held.bounds[stage + 1] - 1] for stage in stages] if held else None
        grid.append({"rank": rank, "replica": replica, "stages": list(stages), "blocks": blocks})
    return {"pipeline": parallelism.pipeline, "data": parallelism.data, "grid": grid}


def _blocks(times: Times, held: Cut) -> list[int] | None:
    """Blocks of each stage, where known."""
    if times.recorded is not None:
        return list(times.recorded.stage_blocks) or None
    return list(held.sizes) if times.blocks else None


def _step(
    plan: TrainingPlan, order: ScheduleOrder, timings: Timings, made: FreezingPlan, times: Times
) -> dict[str, Any]:
    """One pipeline batch without and with freezing; seconds are null when only proportions are known."""
    before, after = simulator.simulate(order, timings), simulator.simulate(order, timings, made.ratios)
    schedule = plan.job.spec.parallelism.schedule
    plan.panels.append(Panel(f"{schedule}, nothing frozen", order, before))
    if made.mean_freeze_ratio:
        title = f"{schedule}, as planned (mean freeze ratio {made.mean_freeze_ratio:.2f})"
        plan.panels.append(Panel(title, order, after, made.ratios))
    steps = max(100, min(1000, _NOISY_TIMES // len(made.ratios)))
    spread = noise.spread(order, timings, made.ratios, sigma=SIGMA, steps=steps)
    total = plan.job.spec.steps * plan.job.spec.accumulation * after.makespan
    return {
        "unfrozenSeconds": None if times.relative else before.makespan,
        "seconds": None if times.relative else after.makespan,
        "totalSeconds": None if times.relative else total,
        "speedUp": made.speedup,
        "speedUpBound": made.speedup_bound,
        "unfrozenBubbleShare": before.bubble_share,
        "bubbleShare": after.bubble_share,
        "noise": {"sigma": SIGMA}
        | {f"p{q:.0%}".rstrip("%"): at / after.makespan for q, at in spread.quantiles.items()},
    }


def _freezing(job: TrainingJob, made: FreezingPlan, settings: FreezingSettings | None) -> dict[str, Any]:
    """What the plan freezes. Null where it is a metric that decides while training."""
    freezing = job.spec.freezing
    decided = freezing.method in ("Timely", "None")
    return {
        "method": freezing.method,
        "selection": freezing.selection if freezing.method == "Timely" else None,
        "maxFreezeRatio": settings.max_ratio if settings else None,
        "slackPercent": 100 * settings.slack if settings else None,
        "meanFreezeRatio": made.mean_freeze_ratio if decided else None,
        "stageMeans": list(made.stage_means) if decided else None,
        "gradientRate": made.gradient_rate if decided else None,
        "planSha256": made.digest if settings else None,
    }


def _comparison(job: TrainingJob, times: Times, settings: FreezingSettings | None) -> dict[str, Any]:
    """Every schedule with every way to freeze, on times of this model; and the least that is as fast as the published."""
    parallelism = job.spec.parallelism
    ranks, microbatches = parallelism.pipeline, parallelism.microbatches
    rows = comparison.compare(
        times.model, ranks=ranks, microbatches=microbatches, settings=settings or FreezingSettings()
    )
    seen = {row.method: row for row in rows if row.schedule == "1F1B"}
    return {
        "methods": dict(comparison.METHODS),
        "rows": [_row(row, times) for row in rows],
        "reach": [_reach(job, times, seen[method]) for method in ("published", "published as run") if method in seen],
    }


def _row(row: comparison.Row, times: Times) -> dict[str, Any]:
    found = asdict(row)
    return {
        "schedule": row.schedule,
        "method": row.method,
        "seconds": None if times.relative else row.makespan,
        "speedUp": row.speedup,
        "meanFreezeRatio": row.mean_freeze_ratio,
        "gradientRate": row.gradient_rate,
        "microbatchesHeld": found["activations_held"],
    }


def _reach(job: TrainingJob, times: Times, target: comparison.Row) -> dict[str, Any]:
    parallelism = job.spec.parallelism
    found: Sequence[comparison.Reach] = comparison.reach(
        times.model, ranks=parallelism.pipeline, microbatches=parallelism.microbatches, within=target.makespan
    )
    return {
        "as": f"{target.schedule}, {target.method}",
        "seconds": None if times.relative else target.makespan,
        "meanFreezeRatio": target.mean_freeze_ratio,
        "schedules": [
            {"schedule": one.schedule, "meanFreezeRatio": one.plan.mean_freeze_ratio if one.plan else None}
            for one in found
        ],
    }


def _cluster(job: TrainingJob) -> dict[str, Any]:
    """What the operator will make of it, in words."""
    workers = job.spec.workers
    objects = ["v1 ConfigMap (the job as it was taken)"]
    if workers.nodes_per_replica > 1:
        objects.append("v1 Service (headless)")
    objects.append("batch/v1 Job (indexed, one index a node; a lost pod starts the next attempt)")
    if workers.nodes_per_replica > 1 and job.spec.scheduling.gang != "None":
        objects.append("a PodGroup, of the gang scheduler that the cluster serves")
    return {"pods": workers.nodes_per_replica, "gpusPerPod": workers.gpus_per_node, "objects": objects}
