"""Sequence parallelism: the ranks of one row hold parts of the latent's tokens. It is diffusers' own context parallelism.

Ulysses attention (all-to-all over the heads), with the plan that the model's class brings (`_cp_plan`); a class without
a plan is refused before its weights are read. Agrees with one rank to rounding (1e-5 relative in fp32).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import torch
from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.groups import RankGroups
from frazil_jobs.generation.guidance import DENOISERS, FolderConfigs
from frazil_jobs.generation.hooks import ForwardHook
from frazil_jobs.generation.rank_grid import SEQUENCE_FIELD

HOOK = "frazil_sequence"


def check_sequence(folder: Path, degree: int) -> None:
    """Raise BadConfiguration unless every denoiser in `folder` can share its tokens among `degree` ranks.

    Reads configs and looks at classes; no weights.
    """
    if degree == 1:
        return
    configs = FolderConfigs.read(folder)
    for name in DENOISERS:
        library, class_name = (configs.pipeline.get(name) or (None, None))[:2]
        if class_name is None:
            continue
        model = getattr(diffusers, class_name, None) if library == "diffusers" else None
        _check_class(class_name, model, configs.denoisers.get(name, {}).get("num_attention_heads"), degree)


def _check_class(class_name: str, model: Any, heads: int | None, degree: int) -> None:
    if getattr(model, "_cp_plan", None) is None:
        raise BadConfiguration(
            f"{class_name} has no plan for sharing its tokens among ranks; these have: {', '.join(sorted(planned()))}",
            field=SEQUENCE_FIELD,
            remedy="set it to 1; more GPUs help as replicas",
        )
    if isinstance(heads, int) and heads % degree:
        raise BadConfiguration(
            f"the {heads} attention heads of {class_name} can't be shared evenly by {degree} ranks",
            field=SEQUENCE_FIELD,
            remedy=f"use a divisor of {heads}",
        )


def planned() -> Iterator[str]:
    """Names of the denoiser classes of this diffusers that have a plan."""
    for name in dir(diffusers):
        if name.endswith(("Transformer2DModel", "Transformer3DModel")):
            model = getattr(diffusers, name, None)
            if getattr(model, "_cp_plan", None) is not None:
                yield name


def split_sequence(pipe: Any, groups: RankGroups) -> None:
    """Share the tokens of each denoiser of `pipe` among the sequence ranks of `groups`, from now on.

    Call it on every rank, before `split_branches`: the branch hook has to be outermost.
    """
    if groups.sequence is None:
        return
    for name in DENOISERS:
        model = getattr(pipe, name, None)
        if isinstance(model, torch.nn.Module):
            _check_class(type(model).__name__, type(model), None, groups.grid.sequence)
            _enable(model, groups)
            _LengthHook(groups.grid.sequence).put_on(model, HOOK)


def _enable(model: Any, groups: RankGroups) -> None:
    config = ParallelConfig(
        context_parallel_config=ContextParallelConfig(ulysses_degree=groups.grid.sequence, mesh=groups.sequence)
    )
    if groups.device.type == "cpu":
        # diffusers numbers devices by the count of accelerators, and divides by it: without one it's done here.
        config.setup(groups.rank, groups.grid.world, groups.device, mesh=groups.sequence)
        model._resolve_parallel_config = lambda _: config
    model.enable_parallelism(config=config)
    module = inspect.getmodule(type(model))
    if module is not None and hasattr(module, "LTXVideoAttnProcessor"):
        _share_masks(module)


def _share_masks(module: ModuleType) -> None:
    """Let the attention of `module` pass its text mask once instead of once a head.

    LTX repeats the mask for all heads (diffusers 0.42), while a rank holds only its share of them after the all-to-all.
    The repeats are equal, so one is enough: it is broadcast over whatever heads are there.
    """
    dispatch = module.dispatch_attention_fn
    if hasattr(dispatch, "__wrapped__"):
        return

    @functools.wraps(dispatch)
    def with_one_mask(*args: Any, attn_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if kwargs.get("parallel_config") is not None and attn_mask is not None and attn_mask.ndim == 4:
            attn_mask = attn_mask[:, :1].contiguous()
        return dispatch(*args, attn_mask=attn_mask, **kwargs)

    module.dispatch_attention_fn = with_one_mask  # type: ignore[attr-defined]


class _LengthHook(ForwardHook):
    """Says what to change when a length can't be shared evenly. (diffusers asserts it.)"""

    def __init__(self, degree: int) -> None:
        super().__init__()
        self._degree = degree

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward."""
        try:
            return self.inner(*args, **kwargs)
        except AssertionError as error:
            if "divisible by mesh size" not in str(error):
                raise
            raise BadConfiguration(
                f"{type(module).__name__} has a number of latent or text tokens that {self._degree} ranks can't share "
                "evenly",
                field=SEQUENCE_FIELD,
                remedy=f"choose height, width, frames and max_sequence_length so that tokens are a multiple of "
                f"{self._degree}, or set it to 1",
            ) from error
