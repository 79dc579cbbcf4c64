"""What ranks run in the tests of the pipeline engine (tests/training/test_pipeline*.py)."""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pipeline_cases import (
    MICROBATCHES,
    WIDTH,
    Rank,
    Stage,
    batches,
    groups,
    loss,
    model,
    rank_of,
    reference,
    run_step,
    stage_count,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from frazil_jobs.api.pipelining import Freezing
from frazil_jobs.training.pipeline import PipelineEngine
from frazil_jobs.training.planning.schedules import order_of

TENSORS = len(list(Stage().parameters()))


def masks_off(schedule: str, pipeline: int, accumulation: int = 1) -> dict[str, Any]:
    """Losses and the largest difference of a gradient from the unpipelined model's, in float64."""
    rank = rank_of(schedule, pipeline=pipeline, accumulation=accumulation, dtype=torch.float64)
    given = batches(accumulation, dtype=torch.float64)
    run_step(rank, 0, given)
    wanted_loss, wanted = reference(stage_count(schedule, pipeline), given, dtype=torch.float64)
    worst = max(
        float((parameter.grad - wanted[stage, name]).abs().max())
        for stage, module in rank.modules.items()
        for name, parameter in module.named_parameters()
    )
    evaluated = np.mean([_evaluate(rank, batch) for batch in given])
    return {"loss": rank.engine.mean_loss(), "evaluated": evaluated, "wanted_loss": wanted_loss, "worst": worst}


def _evaluate(rank: Rank, batch: tuple[torch.Tensor, ...]) -> float:
    inputs, condition, target = batch
    return rank.engine.evaluate_batch((inputs,), target, kwargs={"condition": condition})


def given_masks(kind: str, stages: int, columns: int, tensors: int = TENSORS) -> dict[int, Any]:
    """Stage to mask. `kind`: random, or a stage (first, last, all) frozen in one microbatch ("first-once") or in all."""
    rng = np.random.default_rng(5)
    masks = {stage: np.zeros((columns, tensors), dtype=bool) for stage in range(stages)}
    which, _, once = kind.partition("-")
    for stage, mask in masks.items():
        if which == "random":
            mask[:] = rng.random(mask.shape) < 0.5
            mask[:, 2] = True  # one tensor is frozen throughout
            mask[1] = True
        elif which == "all" or stage == {"first": 0, "last": stages - 1}[which]:
            mask[2 if once else slice(None)] = True
    return masks


def masks_on(
    schedule: str, pipeline: int, kinds: tuple[str, ...], accumulation: int = 1, rescale: bool = False
) -> dict[str, list[str]]:
    """For each kind of mask, the tensors whose gradient isn't bit for bit the reference's: none, if all is well."""
    stages = stage_count(schedule, pipeline)
    given = batches(accumulation)
    first = given_masks(kinds[0], stages, MICROBATCHES * accumulation)
    rank = rank_of(
        schedule,
        pipeline=pipeline,
        accumulation=accumulation,
        given=first,
        settings=Freezing(warmup_steps=10**6, rescale_gradients=rescale),
    )
    wrong = {}
    for step, kind in enumerate(kinds):
        masks = given_masks(kind, stages, MICROBATCHES * accumulation)
        rank.freezer.given = masks
        for parameter in rank.engine.parameters():
            parameter.grad = None
        run_step(rank, step, given)
        rank.engine.end_step()
        _, wanted = reference(stages, given, masks, rescale=rescale)
        wrong[kind] = [
            f"{stage}.{name}"
            for stage, module in rank.modules.items()
            for name, parameter in module.named_parameters()
            if not _same(parameter.grad, wanted[stage, name])
        ]
        assert all(parameter.requires_grad for parameter in rank.engine.parameters())
    return wrong


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return torch.equal(a, b)


OPTIMIZERS = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=0.1),
}


def frozen_state(schedule: str, pipeline: int, optimizer: str) -> dict[str, list[str]]:
    """Tensors whose value or optimizer state changed in a step that froze some of them throughout, and those that didn't."""
    stages = stage_count(schedule, pipeline)
    nothing = {stage: np.zeros((MICROBATCHES, TENSORS), dtype=bool) for stage in range(stages)}
    rank = rank_of(schedule, pipeline=pipeline, given=nothing)
    steps = OPTIMIZERS[optimizer](rank.engine.parameters())
    run_step(rank, 0, batches(1))
    steps.step()
    steps.zero_grad(set_to_none=True)
    before = copy.deepcopy(_states(rank, steps))
    rank.freezer.given = given_masks("random", stages, MICROBATCHES)
    run_step(rank, 1, batches(1))
    steps.step()
    after = _states(rank, steps)
    changed = [name for name in before if not all(map(torch.equal, before[name], after[name]))]
    frozen = [
        f"{stage}.{name}"
        for stage, module in rank.modules.items()
        for position, (name, _) in enumerate(module.named_parameters())
        if rank.freezer.given[stage][:, position].all()
    ]
    return {"changed": sorted(changed), "frozen": sorted(frozen), "all": sorted(before)}


def _states(rank: Rank, optimizer: torch.optim.Optimizer) -> dict[str, list[torch.Tensor]]:
    return {
        f"{stage}.{name}": [
            parameter.detach(),
            *(torch.as_tensor(value) for _, value in sorted(optimizer.state[parameter].items())),
        ]
        for stage, module in rank.modules.items()
        for name, parameter in module.named_parameters()
    }


class CountedLinear(torch.autograd.Function):
    """A fused kernel as people write them: it computes dW only where it is asked to."""

    weight_gradients = 0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        into_weight = None
        if ctx.needs_input_grad[1]:
            CountedLinear.weight_gradients += 1
            into_weight = gradient.t() @ x
        return gradient @ weight if ctx.needs_input_grad[0] else None, into_weight


class ProductsOf(TorchDispatchMode):
    """Counts matrix products by the shape of their result."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            self.shapes[tuple(result.shape)] += 1
        return result


class WideStage(nn.Module):
    """Linear layers whose weights have shapes that no activation has."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return x


def products(schedule: str, pipeline: int) -> dict[str, int]:
    """How often the dW of a torch Linear was computed on this rank, and how many pairs weren't frozen."""
    stages = stage_count(schedule, pipeline)
    masks = given_masks("random", stages, MICROBATCHES, tensors=3)
    rank = rank_of(schedule, pipeline=pipeline, given=masks, wrap=lambda _: WideStage())
    run_step(rank, 0, batches(1))
    with ProductsOf() as counted_products:
        run_step(rank, 1, batches(1))
    return {
        "counted": counted_products.shapes[WIDTH, WIDTH],
        "trained": sum(int((~masks[stage]).sum()) for stage in rank.modules),
    }


class CountedStage(nn.Module):
    """Three such kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(WIDTH, WIDTH) / 4) for _ in range(3))

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = x + torch.tanh(CountedLinear.apply(x, weight))
        return x


def counted(schedule: str, pipeline: int) -> dict[str, int]:
    """How often dW was computed on this rank, and how many (tensor, microbatch) pairs weren't frozen."""
    stages = stage_count(schedule, pipeline)
    masks = given_masks("random", stages, MICROBATCHES, tensors=3)
    rank = rank_of(schedule, pipeline=pipeline, given=masks, wrap=lambda _: CountedStage())
    run_step(rank, 0, batches(1))  # torch runs each stage once to learn shapes
    CountedLinear.weight_gradients = 0
    run_step(rank, 1, batches(1))
    return {
        "counted": CountedLinear.weight_gradients,
        "trained": sum(int((~masks[stage]).sum()) for stage in rank.modules),
    }


@contextmanager
def saved_bytes() -> Any:
    """Bytes of the distinct tensors that autograd saves inside, parameters left out."""
    seen: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield seen


def saved(schedule: str, pipeline: int) -> dict[str, int]:
    """Bytes saved for backward in a step, with nothing, half of the tensors, and everything frozen."""
    stages = stage_count(schedule, pipeline)
    nothing = {stage: np.zeros((MICROBATCHES, TENSORS), dtype=bool) for stage in range(stages)}
    half = {stage: np.tile(np.arange(TENSORS) % 2 == 0, (MICROBATCHES, 1)) for stage in range(stages)}
    everything = given_masks("all", stages, MICROBATCHES)
    rank = rank_of(schedule, pipeline=pipeline, given=nothing)
    run_step(rank, 0, batches(1))
    sizes = {}
    for step, (name, masks) in enumerate({"nothing": nothing, "half": half, "everything": everything}.items(), 1):
        rank.freezer.given = masks
        with saved_bytes() as seen:
            run_step(rank, step, batches(1))
        sizes[name] = sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
    return sizes


def clipped(schedule: str, pipeline: int, max_norm: float) -> dict[str, Any]:
    """Norms before and after, and the reference's before."""
    stages = stage_count(schedule, pipeline)
    masks = given_masks("random", stages, MICROBATCHES)
    rank = rank_of(schedule, pipeline=pipeline, given=masks, dtype=torch.float64)
    given = batches(1, dtype=torch.float64)
    run_step(rank, 0, given)
    norm = rank.engine.clip_gradients(max_norm)
    after = rank.engine.clip_gradients(0)
    _, wanted = reference(stages, given, masks, rescale=True, dtype=torch.float64)
    everything = [gradient.flatten() for gradient in wanted.values() if gradient is not None]
    return {"norm": norm, "after": after, "wanted": float(torch.cat(everything).norm())}


def one_stage() -> dict[str, Any]:
    """A pipeline of one rank, without any group."""
    (module,) = model(1, dtype=torch.float64)
    engine = PipelineEngine(
        {0: module},
        schedule="1F1B",
        microbatches=MICROBATCHES,
        loss=loss,
        pipeline_group=None,
        data_group=None,
        accumulation=2,
    )
    given = batches(2, dtype=torch.float64)
    run_step(Rank({0: module}, engine, None), 0, given)
    wanted_loss, wanted = reference(1, given, dtype=torch.float64)
    return {
        "loss": engine.mean_loss(),
        "wanted_loss": wanted_loss,
        "evaluated": np.mean([_evaluate(Rank({0: module}, engine, None), batch) for batch in given]),
        "same": all(_same(parameter.grad, wanted[0, name]) for name, parameter in module.named_parameters()),
        "norm": engine.clip_gradients(0),
        "report": engine.end_step(),
    }


def replicas(schedule: str, pipeline: int, data: int, steps: int, settings: dict[str, Any]) -> dict[str, bytes]:
    """This rank's weights after some steps, each replica on its own part of the batch."""
    rank = rank_of(schedule, pipeline=pipeline, data=data, settings=Freezing(**settings), accumulation=2)
    optimizer = torch.optim.AdamW(rank.engine.parameters(), lr=0.01)
    replica = dist.get_rank() // pipeline
    for step in range(steps):
        run_step(rank, step, batches(2, replica=replica))
        rank.engine.clip_gradients(1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rank.engine.end_step()
    return weights_of(rank)


def weights_of(rank: Rank) -> dict[str, bytes]:
    return {
        f"{stage}.{name}": tensor.detach().numpy().tobytes()
        for stage, module in rank.modules.items()
        for name, tensor in module.named_parameters()
    }


def replicas_mean(schedule: str, pipeline: int, data: int) -> list[str]:
    """Tensors whose gradient isn't the mean over replicas of the unpipelined gradients, to 1e-12."""
    stages = stage_count(schedule, pipeline)
    masks = given_masks("random", stages, MICROBATCHES)
    rank = rank_of(schedule, pipeline=pipeline, data=data, given=masks, dtype=torch.float64)
    run_step(rank, 0, batches(1, dtype=torch.float64, replica=dist.get_rank() // pipeline))
    parts = [
        reference(stages, batches(1, dtype=torch.float64, replica=replica), masks, rescale=True, dtype=torch.float64)[1]
        for replica in range(data)
    ]

    def differs(key: tuple[int, str], gradient: torch.Tensor | None) -> bool:
        if gradient is None or parts[0][key] is None:
            return gradient is not parts[0][key]
        return float((gradient - sum(part[key] for part in parts) / data).abs().max()) > 1e-12

    return [
        f"{stage}.{name}"
        for stage, module in rank.modules.items()
        for name, parameter in module.named_parameters()
        if differs((stage, name), parameter.grad)
    ]


class CheckpointedStage(nn.Module):
    """The stage's activations are computed again in the backward."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.inner, x, condition, use_reentrant=False)


def variant(schedule: str, pipeline: int, how: str) -> dict[str, Any]:
    """The gradients with masks of a plain run in float32, and of the same run checkpointed, compiled or in bfloat16."""
    stages = stage_count(schedule, pipeline)
    nested = {stage: np.zeros((MICROBATCHES, TENSORS), dtype=bool) for stage in range(stages)}
    for stage, mask in nested.items():
        for microbatch in range(MICROBATCHES):
            mask[microbatch, : (0, 5, TENSORS)[(microbatch + stage) % 3]] = True
    plain = rank_of(schedule, pipeline=pipeline, given=nested)
    wraps = {"checkpoint": CheckpointedStage, "compile": lambda module: torch.compile(module, backend="aot_eager")}
    other = rank_of(
        schedule,
        pipeline=pipeline,
        given=nested,
        wrap=wraps.get(how, lambda module: module),
        autocast=torch.bfloat16 if how == "bfloat16" else None,
    )
    kinds: set[torch.dtype] = set()
    for module in other.modules.values():
        for part in module.modules():
            if isinstance(part, nn.Linear):
                part.register_forward_hook(lambda _, __, output: kinds.add(output.dtype))
    for rank in (plain, other):
        for step in range(2):
            for parameter in rank.engine.parameters():
                parameter.grad = None
            run_step(rank, step, batches(1))
    pairs = list(zip(plain.engine.parameters(), other.engine.parameters(), strict=True))
    far = [
        float((a.grad - b.grad).norm() / a.grad.norm()) for a, b in pairs if a.grad is not None and b.grad is not None
    ]
    return {
        "nones": all((a.grad is None) == (b.grad is None) for a, b in pairs),
        "equal": all(_same(a.grad, b.grad) for a, b in pairs),
        "worst": max(far),
        "kinds": sorted(map(str, kinds)),
        "gradients": sorted({str(b.grad.dtype) for _, b in pairs if b.grad is not None}),
    }


def timed(schedule: str, pipeline: int) -> dict[str, Any]:
    """The actions that this rank's clock saw in one batch, and those of its order."""
    rank = rank_of(schedule, pipeline=pipeline)
    run_step(rank, 0, batches(1))
    report = rank.engine.end_step()
    mine = rank.engine.order.order[dist.get_rank()]
    return {
        "timed": [str(one.action) for one in report.timed],
        "order": [str(action) for action in mine],
        "positive": all(one.seconds > 0 for one in report.timed),
        "shared": len(rank.engine.share(report).timed),
        "whole": sum(map(len, rank.engine.order.order)),
    }


def bad_batch(schedule: str, pipeline: int) -> None:
    """A batch that microbatches don't divide."""
    rank = rank_of(schedule, pipeline=pipeline)
    rank.engine.begin_step(0)
    rank.engine.train_batch(
        (torch.zeros(9, WIDTH),), torch.zeros(9, WIDTH), kwargs={"condition": torch.zeros(9, WIDTH)}
    )


def wrong_stages(schedule: str, pipeline: int) -> None:
    """Each rank is given the stages of the next."""
    pipeline_group, _ = groups(pipeline)
    theirs = order_of(schedule, ranks=pipeline, microbatches=MICROBATCHES).placement.stages_of(
        (dist.get_rank() + 1) % pipeline
    )
    whole = model(stage_count(schedule, pipeline))
    PipelineEngine(
        {stage: whole[stage] for stage in theirs},
        schedule=schedule,
        microbatches=MICROBATCHES,
        loss=loss,
        pipeline_group=pipeline_group,
        data_group=None,
    )
