"""What ranks run in the tests of the freezer (tests/training/freezing/test_freezer*.py)."""

from __future__ import annotations

import io
import json
from typing import Any

import torch
import torch.distributed as dist
from pipeline_cases import Rank, batches, groups, rank_of, run_step, timings_of
from pipeline_work import weights_of

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.training.freezing.exchange import Groups
from frazil_jobs.training.freezing.injected import InjectedTimes
from frazil_jobs.training.planning.program import solve

SHORT = {"warmup_steps": 2, "monitor_steps": 3, "ramp_steps": 4, "max_freeze_ratio": "0.5"}


def _rank(schedule: Any, pipeline: int, settings: dict[str, Any], *, slows_at: int | None = None, **more: Any) -> Rank:
    def pace(step: int) -> float:
        return 1.5 if slows_at is not None and step >= slows_at else 1.0

    return rank_of(
        schedule,
        pipeline=pipeline,
        accumulation=2,
        settings=Freezing(**settings),
        injected=InjectedTimes(timings_of(schedule, pipeline), pace),
        **more,
    )


def _train(rank: Rank, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[tuple[str, float]]:
    seen = []
    for step in range(first, last):
        run_step(rank, step, [tuple(part + step / 10 for part in batch) for batch in batches(2)])
        rank.engine.clip_gradients(1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        report = rank.engine.share(rank.engine.end_step())
        seen.append((report.phase, report.mean_freeze_ratio))
    return seen


def _optimizer(rank: Rank) -> torch.optim.Optimizer:
    return torch.optim.AdamW(rank.engine.parameters(), lr=0.01)


def resumed(
    schedule: str,
    pipeline: int,
    settings: dict[str, Any],
    cuts: tuple[int, ...],
    steps: int,
    slows_at: int | None = None,
) -> dict[str, Any]:
    """Weights of an uninterrupted run, and of runs that were cut and went on from what was saved as bytes."""
    whole = _rank(schedule, pipeline, settings, slows_at=slows_at)
    seen = _train(whole, _optimizer(whole), 0, steps)
    plans = [(entry["step"], entry["reason"]) for entry in whole.freezer.plans]
    ends = {}
    for cut in cuts:
        before = _rank(schedule, pipeline, settings, slows_at=slows_at)
        optimizer = _optimizer(before)
        _train(before, optimizer, 0, cut)
        stored = io.BytesIO()
        modules = {stage: module.state_dict() for stage, module in before.modules.items()}
        torch.save((modules, optimizer.state_dict(), before.freezer.state_dict()), stored)
        stored.seek(0)
        modules, optimizer_state, freezing = torch.load(stored, weights_only=True)
        after = _rank(schedule, pipeline, settings, slows_at=slows_at)
        for stage, module in after.modules.items():
            module.load_state_dict(modules[stage])
        optimizer = _optimizer(after)
        optimizer.load_state_dict(optimizer_state)
        after.freezer.load_state_dict(freezing)
        _train(after, optimizer, cut, steps)
        ends[cut] = weights_of(after) == weights_of(whole)
    return {"same": ends, "seen": seen, "plans": plans}


def replayed(schedule: str, pipeline: int, settings: dict[str, Any], steps: int, live: bool) -> dict[str, Any]:
    """A run whose plans come from its own clock (`live`) or from given times, and a run without either that replays its
    log."""
    plain = {"pipeline": pipeline, "accumulation": 2, "settings": Freezing(**settings)}
    first = rank_of(schedule, **plain) if live else _rank(schedule, pipeline, settings)
    _train(first, _optimizer(first), 0, steps)
    log = json.loads(json.dumps(first.freezer.plans))
    again = rank_of(schedule, **plain, replay=log)
    _train(again, _optimizer(again), 0, steps)
    return {
        "plans": [(entry["step"], entry["plan"]) for entry in log],
        "same": weights_of(first) == weights_of(again),
    }


class Corrupted(Groups):
    """The last rank receives another plan than was sent."""

    def broadcast(self, value: Any) -> Any:
        text, trouble = super().broadcast(value)
        if dist.get_rank() == dist.get_world_size() - 1:
            plan = json.loads(text)
            plan["makespan"] *= 1.0000001
            text = json.dumps(plan)
        return text, trouble


def corrupted(schedule: str, pipeline: int) -> None:
    """Ranks that disagree on the plan."""
    rank = _rank(schedule, pipeline, SHORT, exchange=Corrupted(*groups(pipeline)))
    _train(rank, _optimizer(rank), 0, 8)


def other_state(schedule: str, pipeline: int) -> None:
    """Ranks that resume from different checkpoints."""
    rank = _rank(schedule, pipeline, SHORT)
    _train(rank, _optimizer(rank), 0, 6)
    state = rank.freezer.state_dict()
    if dist.get_rank() == 0:
        state["controller"]["log"] = []
    again = _rank(schedule, pipeline, SHORT)
    again.freezer.load_state_dict(state)
    again.engine.begin_step(6)


def failing(schedule: str, pipeline: int) -> None:
    """The one rank that solves can't."""

    def broken(*_: Any) -> Any:
        raise ArithmeticError("no solver today")

    rank = _rank(schedule, pipeline, SHORT, solver=broken if dist.get_rank() == 0 else solve)
    _train(rank, _optimizer(rank), 0, 8)


def metric(schedule: str, pipeline: int, method: str, steps: int, threshold: str = "0.05") -> dict[str, Any]:
    """What a metric alone froze in the end, by stage and tensor, and the phases."""
    settings = {"method": method, "apf_threshold": threshold, "auto_freeze_percentile": 60}
    rank = rank_of(schedule, pipeline=pipeline, accumulation=2, settings=Freezing(**settings), blocks=2)
    seen = _train(rank, _optimizer(rank), 0, steps)
    return {"frozen": rank.freezer.selection.tensor_shares(), "seen": seen}
