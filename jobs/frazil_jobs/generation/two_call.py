"""Guidance in two calls: the pipeline calls its denoiser once a branch, and each rank evaluates one of the two.

In the first call the rank that does not own the branch returns a placeholder at once and goes on to the second, which it
does own; so both work at the same time. At the end of the second call one gather brings both predictions together, and
the placeholder is filled in place. That is right as long as the pipeline only takes views of the first result before it
has the second. The placeholder is NaN until then, and the first image is watched: NaN in the next latents says that it
was copied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks.hooks import BaseState, StateManager
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from frazil_jobs.generation.arguments import latent_of, refusal
from frazil_jobs.generation.exchange import by_branch
from frazil_jobs.generation.groups import RankGroups
from frazil_jobs.generation.one_call import prediction_of, with_prediction
from frazil_jobs.generation.work import Work


class _NoState(BaseState):
    """`cache_context` reaches hooks that own a StateManager; this one keeps nothing but the name."""

    def reset(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to reset."""


class CallNames(StateManager):
    """The name that the pipeline gave the current denoiser call ("cond", "uncond"), if it gave one."""

    def __init__(self) -> None:
        super().__init__(_NoState)  # type: ignore[arg-type]  # diffusers says instance and means class

    @property
    def current(self) -> str | None:
        """The name, or None outside of `cache_context`."""
        return None if self._context is None else self._context.name


@dataclass(frozen=True, kw_only=True)
class _First:
    """The first call of a step, while the second is awaited. `prediction` may be a placeholder."""

    module: torch.nn.Module
    name: str | None
    timestep: Any
    prediction: torch.Tensor


@dataclass(frozen=True)
class _Form:
    """Shape and type of a prediction."""

    shape: torch.Size
    dtype: torch.dtype


class PairedCalls:
    """Evaluates this rank's half of each pair of calls: conditioning rank 0 the first, rank 1 the second, one rank both."""

    def __init__(self, groups: RankGroups, work: Work) -> None:
        self._work = work
        self._alone = groups.grid.conditioning == 1
        self._owns_first = groups.place.branch == 0
        self._pending: _First | None = None
        self._forms: dict[tuple[int, _Form], _Form] = {}
        self._watching = True
        self._filled_finite = False

    def evaluate(
        self,
        module: torch.nn.Module,
        forward: Callable[..., Any],
        arguments: dict[str, Any],
        *,
        name: str | None,
        paired: bool,
    ) -> Any:
        """What `forward(**arguments)` returns, or on the rank that does not own this call a placeholder for it.

        `paired` says whether the pipeline will make a second call after this one, should this be a first one.
        """
        if self._pending is not None:
            return self._second(self._pending, module, forward, arguments, name)
        self._watch(latent_of(arguments, module))
        if not paired:
            return forward(**arguments)
        return self._first(module, forward, arguments, name)

    def _first(
        self, module: torch.nn.Module, forward: Callable[..., Any], arguments: dict[str, Any], name: str | None
    ) -> Any:
        self._work.enter(module)
        latent = latent_of(arguments, module)
        key = (id(module), _Form(latent.shape, latent.dtype))
        known = self._forms.get(key)
        if self._owns_first or known is None:
            # The form of a prediction is only known from one: the first call at each size is evaluated by both ranks.
            call = functools.partial(forward, **arguments)
            output = self._work.evaluate(0, arguments, call) if self._owns_first else call()
            prediction = prediction_of(output, module).contiguous()
            self._forms[key] = _Form(prediction.shape, prediction.dtype)
            output = with_prediction(output, prediction)
        else:
            prediction = torch.full(known.shape, torch.nan, dtype=known.dtype, device=latent.device)
            output = _output(prediction, arguments)
        self._pending = _First(module=module, name=name, timestep=arguments.get("timestep"), prediction=prediction)
        return output

    def _second(
        self,
        first: _First,
        module: torch.nn.Module,
        forward: Callable[..., Any],
        arguments: dict[str, Any],
        name: str | None,
    ) -> Any:
        self._check_pair(first, module, arguments, name)
        self._pending = None
        rows = first.prediction.shape[0]
        if self._owns_first and not self._alone:
            both = self._work.exchange(first.prediction)
            self._work.observe(by_branch(both, 2))
            first.prediction.copy_(both[:rows])  # on a rank of another stage than the last, only now a prediction
            return _output(both[rows:], arguments)
        output = self._work.evaluate(1, arguments, functools.partial(forward, **arguments))
        prediction = prediction_of(output, module)
        if self._alone:
            self._work.observe(torch.stack([first.prediction, prediction]))
            return output
        both = self._work.exchange(prediction)
        self._work.observe(by_branch(both, 2))
        first.prediction.copy_(both[:rows])
        if self._watching:
            self._filled_finite = not bool(torch.isnan(first.prediction).any())
        return with_prediction(output, both[rows:])

    def _check_pair(self, first: _First, module: torch.nn.Module, arguments: dict[str, Any], name: str | None) -> None:
        """The call after a first one has to be its second: the same denoiser, another name, or without names the same time.

        (To compare times costs a wait for the GPU, so it's done only where there are no names.)
        """
        if first.name is None or name is None:
            fits = _equal(first.timestep, arguments.get("timestep"))
        else:
            fits = first.name != name
        if module is not first.module or not fits:
            raise refusal("one step's first denoiser call was followed by another step's, not by its second")

    def _watch(self, latent: torch.Tensor) -> None:
        """Raise when the placeholder of the last step got into the latents, although it was filled with numbers."""
        if not self._watching or not self._filled_finite:
            return
        self._filled_finite = False
        if bool(torch.isnan(latent).any()):
            raise refusal("the pipeline copies the first branch's prediction before it asks for the second's")

    def check_complete(self) -> None:
        """At the end of a pipeline call: no first call may be left without its second. The first image is over."""
        if self._pending is not None:
            raise refusal("the last denoiser call was not followed by that of the second branch")
        self._watching = False

    def reset(self) -> None:
        """Forget the step in hand."""
        self._pending = None
        self._filled_finite = False


def _equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return bool(one == other)


def _output(prediction: torch.Tensor, arguments: dict[str, Any]) -> Any:
    """What a denoiser returns that was not run."""
    return (prediction,) if arguments.get("return_dict") is False else Transformer2DModelOutput(sample=prediction)
