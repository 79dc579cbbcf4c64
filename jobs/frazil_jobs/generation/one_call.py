"""Guidance in one call: the pipeline stacks n branches along the batch, and each rank evaluates its own.

Branches are dealt in runs: with n branches on R ranks, each gets ceil(n/R), the last one what is left. Each branch is
evaluated at the batch of one branch, one after the other, and one gather brings all predictions together in the
pipeline's own order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.generation.arguments import Rows, conditions_in, cut, latent_of, named
from frazil_jobs.generation.exchange import by_branch
from frazil_jobs.generation.groups import RankGroups
from frazil_jobs.generation.hooks import ForwardHook
from frazil_jobs.generation.rank_grid import CONDITIONING_FIELD, ONE_CONDITION_REMEDY
from frazil_jobs.generation.work import Work


def share_of(conditions: int, *, ranks: int, rank: int) -> range:
    """The branches of one rank. Runs of ceil(n/R), so that the last rank may have fewer, or none."""
    most = -(-conditions // ranks)
    return range(min(rank * most, conditions), min((rank + 1) * most, conditions))


class StackedBranches:
    """Evaluates this rank's share of a stacked call."""

    def __init__(self, groups: RankGroups, work: Work) -> None:
        self._groups = groups
        self._work = work

    def share(self, conditions: int) -> range:
        """The branches that this rank evaluates in the step that comes next."""
        if self._work.line_branch is not None:
            return range(self._work.line_branch, self._work.line_branch + 1)
        return share_of(conditions, ranks=self._groups.grid.conditioning, rank=self._groups.place.branch)

    def evaluate(
        self, module: torch.nn.Module, forward: Callable[..., Any], arguments: dict[str, Any], *, batch: int
    ) -> Any:
        """What `forward(**arguments)` returns, of which this rank evaluates its own branches.

        The number of branches is that of this very call: a callback that drops guidance in mid-run makes it 1, and then
        every rank evaluates the call whole, without a message.
        """
        conditions = conditions_in(latent_of(arguments, module), batch=batch, module=module)
        if conditions == 1:
            return forward(**arguments)
        if conditions < self._groups.grid.conditioning:
            raise BadConfiguration(
                f"{conditions} branches can't be shared by {self._groups.grid.conditioning} ranks",
                field=CONDITIONING_FIELD,
                remedy=ONE_CONDITION_REMEDY,
            )
        self._work.enter(module)
        total = conditions * batch
        outputs = []
        for branch in self.share(conditions):
            own = cut(module, arguments, Rows(start=branch * batch, batch=batch, total=total))
            outputs.append(self._work.evaluate(branch, own, functools.partial(forward, **own)))
        predictions = [prediction_of(output, module) for output in outputs]
        slots = 1 if self._work.line_branch is not None else -(-conditions // self._groups.grid.conditioning)
        everything = self._work.exchange(_stack(predictions, slots))[:total]
        self._work.observe(by_branch(everything, conditions))
        return with_prediction(outputs[0], everything)

    def evaluate_alone(
        self, module: torch.nn.Module, forward: Callable[..., Any], arguments: dict[str, Any], *, batch: int
    ) -> Any:
        """The same on one rank, which evaluates the call as the pipeline made it."""
        conditions = conditions_in(latent_of(arguments, module), batch=batch, module=module)
        if conditions == 1:
            return forward(**arguments)
        self._work.enter(module)
        output = self._work.evaluate(None, arguments, functools.partial(forward, **arguments))
        self._work.observe(by_branch(prediction_of(output, module).contiguous(), conditions))
        return output


def _stack(predictions: list[torch.Tensor], slots: int) -> torch.Tensor:
    """The predictions below each other, filled up to `slots` of them: a gather wants the same size of every rank."""
    if len(predictions) == slots == 1:
        return predictions[0]
    filling = [torch.zeros_like(predictions[0])] * (slots - len(predictions))
    return torch.cat([*predictions, *filling])


def prediction_of(output: Any, module: torch.nn.Module) -> torch.Tensor:
    """The one tensor that a denoiser returns, as a tuple or as a `ModelOutput`."""
    values = output if isinstance(output, tuple) else [getattr(output, entry.name) for entry in fields(output)]
    tensors = [value for value in values if value is not None]
    if len(tensors) != 1 or not isinstance(tensors[0], torch.Tensor):
        raise BadConfiguration(
            f"{type(module).__name__} returns {len(tensors)} values, where one prediction is expected",
            field=CONDITIONING_FIELD,
            remedy=ONE_CONDITION_REMEDY,
        )
    return tensors[0]


def with_prediction(output: Any, prediction: torch.Tensor) -> Any:
    """`output` with another prediction in the place of its own."""
    if isinstance(output, tuple):
        return (prediction,)
    return type(output)(**{fields(output)[0].name: prediction})


class ResidualsHook(ForwardHook):
    """On a ControlNet, which returns residuals that only the denoiser reads.

    Each rank evaluates it for its own branches and returns tensors of full size in which only its own rows are filled;
    the denoiser's hook then cuts out the same rows. No message. The other rows are NaN, so that nobody uses them
    unnoticed.
    """

    def __init__(self, branches: StackedBranches, batch_size: Callable[[], int | None]) -> None:
        super().__init__()
        self._branches = branches
        self._batch_size = batch_size

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The residuals, of which this rank's rows are filled."""
        forward = self.inner
        batch = self._batch_size()
        arguments = named(module, args, kwargs)
        if batch is None:
            return forward(*args, **kwargs)
        conditions = conditions_in(latent_of(arguments, module), batch=batch, module=module)
        if conditions == 1:  # guess mode calls it for the conditional branch alone
            return forward(*args, **kwargs)
        total = conditions * batch
        outputs = {
            branch: forward(**cut(module, arguments, Rows(start=branch * batch, batch=batch, total=total)))
            for branch in self._branches.share(conditions)
        }
        return _spread(list(outputs.values()), list(outputs), batch=batch, total=total)


def _spread(parts: list[Any], branches: list[int], *, batch: int, total: int) -> Any:
    """One structure of full-size tensors out of the structures of some branches."""
    first: Any = parts[0]
    if isinstance(first, torch.Tensor):
        whole = first.new_full((total, *first.shape[1:]), torch.nan)
        for branch, part in zip(branches, parts, strict=True):
            whole[branch * batch : (branch + 1) * batch] = part
        return whole
    if isinstance(first, list | tuple):
        return type(first)(
            _spread(list(entries), branches, batch=batch, total=total) for entries in zip(*parts, strict=True)
        )
    if is_dataclass(first):
        values = {
            entry.name: _spread([getattr(part, entry.name) for part in parts], branches, batch=batch, total=total)
            for entry in fields(first)
        }
        make: Any = type(first)
        return make(**values)
    return first
