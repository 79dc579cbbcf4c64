"""Small models in stages, what an engine makes of them on this rank, and the same without any pipeline.

The reference evaluates the whole model one microbatch after the other by `torch.autograd.grad`, and adds the gradients of
those microbatches that a mask leaves: no schedule, no stage, no requires_grad is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.training.freezing.freezer import Freezer
from frazil_jobs.training.freezing.injected import InjectedTimes
from frazil_jobs.training.pipeline import PipelineEngine
from frazil_jobs.training.planning.schedules import order_of, stages_of
from frazil_jobs.training.planning.timings import StageTime, Timings

SCHEDULES = ("GPipe", "1F1B", "Interleaved1F1B", "ZBV", "ZBH1")
WIDTH, BATCH, MICROBATCHES = 16, 16, 8
TIMEOUT = timedelta(seconds=60)


class Block(nn.Module):
    """A transformer's MLP block, shifted and scaled by a condition that each stage embeds for itself (as in a DiT)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.modulation = nn.Linear(width, 2 * width)
        self.grow = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift, scale = self.modulation(condition).chunk(2, dim=-1)
        inside = self.norm(x) * (1 + scale) + shift
        return x + self.shrink(torch.nn.functional.gelu(self.grow(inside)))


class Stage(nn.Module):
    """An embedding of the condition, then blocks."""

    def __init__(self, width: int = WIDTH, blocks: int = 1) -> None:
        super().__init__()
        self.embed = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        embedded = self.embed(condition)
        for block in self.blocks:
            x = block(x, embedded)
        return x


def model(stages: int, *, dtype: torch.dtype = torch.float32, blocks: int = 1) -> list[Stage]:
    """All stages, from the same seed everywhere."""
    torch.manual_seed(0)
    return [Stage(blocks=blocks).to(dtype) for _ in range(stages)]


def batches(count: int, *, dtype: torch.dtype = torch.float32, replica: int = 0) -> list[tuple[torch.Tensor, ...]]:
    """(inputs, condition, target), by batch."""
    generator = torch.Generator().manual_seed(1 + replica)
    return [tuple(torch.randn(BATCH, WIDTH, generator=generator, dtype=dtype) for _ in range(3)) for _ in range(count)]


def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.mse_loss(output, target)


@cache
def groups(pipeline: int, data: int = 1) -> tuple[dist.ProcessGroup | None, dist.ProcessGroup | None]:
    """This rank's pipeline and its replicas: rank = replica * pipeline + stage rank."""
    rank = dist.get_rank()
    mine: list[dist.ProcessGroup | None] = [None, None]
    pipelines = [list(range(replica * pipeline, (replica + 1) * pipeline)) for replica in range(data)]
    replicas = [list(range(stage, data * pipeline, pipeline)) for stage in range(pipeline)]
    for which, sets in enumerate((pipelines, replicas)):
        for ranks in sets:
            group = dist.new_group(ranks, timeout=TIMEOUT)
            if rank in ranks and len(ranks) > 1:
                mine[which] = group
    return mine[0], mine[1]


class GivenFreezer(Freezer):
    """A freezer whose masks are given: stage to a mask [accumulation * microbatches, tensors]."""

    given: Mapping[int, Any]

    def begin_step(self, step: int) -> None:
        super().begin_step(step)
        for stage, drawn in self.selection._drawn.items():
            self.selection._drawn[stage] = replace(drawn, mask=self.given[stage])


@dataclass
class Rank:
    """This rank's part of a run."""

    modules: dict[int, Stage]
    engine: PipelineEngine
    freezer: Freezer | None


def timings_of(schedule: Any, pipeline: int, *, microbatches: int = MICROBATCHES) -> Timings:
    """Times like those of a published run, in seconds."""
    order = order_of(schedule, ranks=pipeline, microbatches=microbatches)
    stages = [
        StageTime(forward=0.014 + 0.001 * (s % 3), backward=0.042 + 0.002 * (s % 2), backward_frozen=0.02 if s else 0.0)
        for s in range(order.stages)
    ]
    return Timings.of_stages(stages, order.order, provenance="emulated", hop_seconds=0.001)


def rank_of(
    schedule: Any,
    *,
    pipeline: int,
    data: int = 1,
    accumulation: int = 1,
    settings: Freezing | None = None,
    given: Mapping[int, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    autocast: torch.dtype | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    blocks: int = 1,
    microbatches: int = MICROBATCHES,
    seed: int = 7,
    injected: InjectedTimes | None = None,
    **freezer_arguments: Any,
) -> Rank:
    """An engine on this rank, with a freezer where settings or masks are given."""
    pipeline_group, data_group = groups(pipeline, data)
    rank = dist.get_rank(pipeline_group) if pipeline_group is not None else 0
    order = order_of(schedule, ranks=pipeline, microbatches=microbatches)
    whole = model(order.stages, dtype=dtype, blocks=blocks)
    modules = {stage: wrap(whole[stage]) for stage in order.placement.stages_of(rank)}
    freezer: Freezer | None = None
    if settings is not None or given is not None:
        kind = GivenFreezer if given is not None else Freezer
        freezer = kind(
            settings or Freezing(warmup_steps=10**6),
            modules,
            schedule=schedule,
            pipeline=pipeline,
            microbatches=microbatches,
            accumulation=accumulation,
            seed=seed,
            warmup_steps=0,
            pipeline_group=pipeline_group,
            data_group=data_group,
            injected=injected,
            **freezer_arguments,
        )
        if isinstance(freezer, GivenFreezer):
            assert given is not None
            freezer.given = given
    engine = PipelineEngine(
        modules,
        schedule=schedule,
        microbatches=microbatches,
        loss=loss,
        pipeline_group=pipeline_group,
        data_group=data_group,
        accumulation=accumulation,
        freezer=freezer,
        autocast=autocast,
    )
    return Rank(modules=modules, engine=engine, freezer=freezer)


def run_step(rank: Rank, step: int, given: Sequence[tuple[torch.Tensor, ...]]) -> None:
    """Forward, backward and reduction of one optimizer step."""
    rank.engine.begin_step(step)
    for inputs, condition, target in given:
        rank.engine.train_batch((inputs,), target, kwargs={"condition": condition})
    rank.engine.reduce_gradients()


def reference(
    stages: int,
    given: Sequence[tuple[torch.Tensor, ...]],
    masks: Mapping[int, Any] | None = None,
    *,
    rescale: bool = False,
    dtype: torch.dtype = torch.float32,
    blocks: int = 1,
    microbatches: int = MICROBATCHES,
) -> tuple[float, dict[tuple[int, str], torch.Tensor | None]]:
    """(mean loss, gradients by stage and name) of the unpipelined model."""
    whole = model(stages, dtype=dtype, blocks=blocks)
    named = [(s, p, name, tensor) for s, m in enumerate(whole) for p, (name, tensor) in enumerate(m.named_parameters())]
    sums: dict[tuple[int, str], torch.Tensor | None] = {(s, name): None for s, _, name, _ in named}
    kept = dict.fromkeys(sums, 0)
    losses: list[torch.Tensor] = []
    for batch in given:
        for part in zip(*(tensor.chunk(microbatches) for tensor in batch), strict=True):
            x, condition, target = part
            for module in whole:
                x = module(x, condition)
            value = loss(x, target)
            gradients = torch.autograd.grad(value, [tensor for _, _, _, tensor in named])
            for (s, p, name, _), gradient in zip(named, gradients, strict=True):
                if masks is None or not masks[s][len(losses), p]:
                    before = sums[s, name]
                    sums[s, name] = gradient if before is None else before + gradient
                    kept[s, name] += 1
            losses.append(value.detach())
    return float(torch.stack(losses).mean()), {
        key: total / (kept[key] if rescale else len(losses)) if total is not None else None
        for key, total in sums.items()
    }


def stage_count(schedule: Any, pipeline: int) -> int:
    return stages_of(schedule, pipeline)
