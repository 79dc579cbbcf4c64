"""What the ranks of a `RankPool` are asked to do in tests of the branch split."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from branch_cases import Case, build, call_of

from frazil_jobs.generation.branches import split_branches
from frazil_jobs.generation.groups import RankGroups, join_groups
from frazil_jobs.generation.guidance import DENOISERS, FolderConfigs
from frazil_jobs.generation.rank_grid import RankGrid
from frazil_jobs.generation.sequence import split_sequence

COLLECTIVES = (
    *("all_gather_into_tensor", "all_gather", "all_gather_object", "all_reduce", "broadcast", "reduce", "gather"),
    *("scatter", "reduce_scatter", "all_to_all", "all_to_all_single", "send", "recv", "isend", "irecv", "barrier"),
    *("batch_isend_irecv", "broadcast_object_list", "reduce_scatter_tensor", "gather_object"),
)


def configs_of(pipe: Any) -> FolderConfigs:
    """What the folder of `pipe` would say."""
    denoisers = {name: dict(model.config) for name in DENOISERS if (model := getattr(pipe, name, None)) is not None}
    return FolderConfigs(pipeline=dict(pipe.config), denoisers=denoisers)


@functools.cache
def groups_for(conditioning: int, sequence: int, seconds: float = 30) -> RankGroups:
    """The groups of a grid, made once a process."""
    return join_groups(RankGrid(conditioning=conditioning, sequence=sequence), timeout=timedelta(seconds=seconds))


def generate(
    cases: list[Case],
    *,
    conditioning: int = 2,
    sequence: int = 1,
    debug: bool = False,
    seconds: float = 30,
    tamper: str | None = None,
) -> list[dict[str, Any]]:
    """Make the calls of `cases` one after the other on one split pipeline, that of the first case.

    For each call: latents, what the denoiser was called with (`inputs`) and how many rows it evaluated a step (`rows`),
    and what was sent (`messages`: name of the collective and its bytes). `tamper` names a function below.
    """
    groups = groups_for(conditioning, sequence, seconds)
    pipe = build(cases[0])
    split_sequence(pipe, groups)
    results = []
    with split_branches(pipe, groups, configs_of(pipe), debug=debug) as split:
        for case in cases:
            arguments = call_of(case)
            with ExitStack() as stack:
                if tamper:
                    stack.enter_context(TAMPERS[tamper](pipe, arguments, dist.get_rank()))
                seen = stack.enter_context(watched(pipe))
                guidance = stack.enter_context(split.call(arguments, batch_size=case.batch))
                output = pipe(**arguments)[0]
            results.append({"latents": output, "guidance": guidance, **seen})
    return results


def outcome(**arguments: Any) -> tuple[str, str]:
    """How `generate` ends on this rank: the kind of its error and what it says, or "fine"."""
    try:
        generate(**arguments)
    except Exception as error:
        return type(error).__name__, str(error)
    return "fine", ""


def after_an_error(case: Case, *, tamper: str) -> tuple[str, torch.Tensor]:
    """A call that fails in mid-run and another on the same hooks: the first one's error, the second one's latents."""
    groups = groups_for(2, 1)
    pipe = build(case)
    with split_branches(pipe, groups, configs_of(pipe)) as split:
        arguments = call_of(case)
        error = ""
        try:
            with TAMPERS[tamper](pipe, arguments, dist.get_rank()), split.call(arguments, batch_size=case.batch):
                pipe(**arguments)
        except ValueError as raised:
            error = str(raised)
        arguments = call_of(case)
        with split.call(arguments, batch_size=case.batch):
            return error, pipe(**arguments)[0]


@contextmanager
def watched(pipe: Any) -> Iterator[dict[str, Any]]:
    """Note inputs and rows of the denoisers and the messages of the process."""
    seen: dict[str, Any] = {"inputs": [], "rows": [], "messages": []}

    def called(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args else kwargs.get("hidden_states", kwargs.get("sample"))
        seen["inputs"].append(value.clone())

    def evaluated(_module: Any, args: tuple[Any, ...], _output: Any) -> None:
        seen["rows"].append(args[0].shape[0])

    handles = []
    for name in DENOISERS:
        module = getattr(pipe, name, None)
        if isinstance(module, torch.nn.Module):
            handles.append(module.register_forward_pre_hook(called, with_kwargs=True))
            handles.append(_last_layer(module).register_forward_hook(evaluated))
    with messages(seen["messages"]):
        yield seen
    for handle in handles:
        handle.remove()


def _last_layer(module: torch.nn.Module) -> torch.nn.Module:
    """The layer that every evaluation passes once."""
    return module.conv_out if hasattr(module, "conv_out") else module.proj_out


@contextmanager
def messages(log: list[tuple[str, int]]) -> Iterator[None]:
    """Log every collective that goes through `torch.distributed`."""
    originals = {name: getattr(dist, name) for name in COLLECTIVES}

    def logged(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            sent = args[1] if name.startswith("all_gather") else args[0] if args else None
            log.append((name, sent.numel() * sent.element_size() if isinstance(sent, torch.Tensor) else -1))
            return originals[name](*args, **kwargs)

        return call

    for name in COLLECTIVES:
        setattr(dist, name, logged(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


@contextmanager
def _guidance_ends(pipe: Any, arguments: dict[str, Any], rank: int) -> Iterator[None]:
    """A callback drops guidance after the second step."""
    if hasattr(pipe, "unet"):
        from diffusers.callbacks import SDXLCFGCutoffCallback

        callback: Any = SDXLCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
        arguments["callback_on_step_end"] = callback
        arguments["callback_on_step_end_tensor_inputs"] = callback.tensor_inputs
    else:

        def unguided(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if step == 1:
                pipe._guidance_scale = 1.0
            return {}

        arguments["callback_on_step_end"] = unguided
    yield


@contextmanager
def _rank_1_raises(pipe: Any, arguments: dict[str, Any], rank: int) -> Iterator[None]:
    with _raises_at(arguments, step=1 if rank == 1 else -1):
        yield


@contextmanager
def _both_raise(pipe: Any, arguments: dict[str, Any], rank: int) -> Iterator[None]:
    with _raises_at(arguments, step=1):
        yield


@contextmanager
def _raises_at(arguments: dict[str, Any], *, step: int) -> Iterator[None]:
    def callback(_pipe: Any, at: int, _timestep: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        if at == step:
            raise ValueError(f"told to fail at step {at}")
        return {}

    arguments["callback_on_step_end"] = callback
    yield


@contextmanager
def _second_call_raises(pipe: Any, arguments: dict[str, Any], rank: int) -> Iterator[None]:
    """The second branch's call of the second step fails on both ranks, before anything is exchanged."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise ValueError("told to fail between the branches")

    handle = pipe.transformer.register_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _copies(pipe: Any, arguments: dict[str, Any], rank: int) -> Iterator[None]:
    """The pipeline gets copies of predictions, as if it had cast them."""
    handle = pipe.transformer.register_forward_hook(lambda _m, _a, output: (output[0].clone(),))
    yield
    handle.remove()


@contextmanager
def _no_second_call(pipe: Any, arguments: dict[str, Any], rank: int) -> Iterator[None]:
    """The pipeline is guided by all that is known beforehand, and yet makes one call a step."""
    arguments["true_cfg_scale"] = 4.0
    original = type(pipe).__call__

    def unguided(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(self, *args, **{**kwargs, "true_cfg_scale": 1.0})

    functools.update_wrapper(unguided, original)
    type(pipe).__call__ = unguided
    try:
        yield
    finally:
        type(pipe).__call__ = original


@contextmanager
def _other_seed(pipe: Any, arguments: dict[str, Any], rank: int) -> Iterator[None]:
    """Rank 1 starts from other noise."""
    if rank == 1:
        arguments["generator"] = [torch.Generator().manual_seed(99) for _ in arguments["generator"]]
    yield


TAMPERS: dict[str, Callable[[Any, dict[str, Any], int], Any]] = {
    "guidance ends": _guidance_ends,
    "rank 1 raises": _rank_1_raises,
    "both raise": _both_raise,
    "second call raises": _second_call_raises,
    "copies": _copies,
    "no second call": _no_second_call,
    "other seed": _other_seed,
}
