"""Exact condition partitioning: each rank evaluates its own branches of guidance and gets the others' predictions.

    with split_branches(pipe, groups, configs) as split:
        with split.call(arguments, batch_size=len(prompts)):
            images = pipe(**arguments).images

Hooks on the denoisers do it (diffusers' `HookRegistry`); no pipeline code is copied. Everything else (text, guidance,
rescaling, scheduler, callbacks, decoding) runs as it is on every rank, on the same bytes. The result equals the
evaluation of the branches one after the other bit for bit, and the stock call, which evaluates them as one batch, to
rounding (1e-5 relative in fp32). The idea is Hybridiff's (arXiv 2602.21760, section 3) outside of its window: there with
three broadcasts a step, here with one gather.

`one_call.py` serves pipelines that stack the branches in one call, `two_call.py` those that call once a branch. In an
approximate mode (`modes/`) the same split runs, and only the evaluation of a step differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch

from frazil_jobs.generation.arguments import latent_of, named
from frazil_jobs.generation.exchange import check_agreement
from frazil_jobs.generation.groups import RankGroups
from frazil_jobs.generation.guidance import DENOISERS, FolderConfigs, Guidance, guidance_of_call
from frazil_jobs.generation.hooks import ForwardHook, take_off
from frazil_jobs.generation.modes.asked import EXACT, AskedMode
from frazil_jobs.generation.modes.conductor import StepRecord
from frazil_jobs.generation.modes.policy import Course
from frazil_jobs.generation.modes.ranked import RankConductor
from frazil_jobs.generation.one_call import ResidualsHook, StackedBranches
from frazil_jobs.generation.two_call import CallNames, PairedCalls
from frazil_jobs.generation.work import ExactWork, ModeWork, Work

HOOK = "frazil_branches"
HELPERS = ("controlnet",)
"""Components that are called beside the denoiser in every step, with the same stacked rows."""


@dataclass(kw_only=True)
class Step:
    """What happens in the current pipeline call; `calls` counts the calls of all its denoisers."""

    guidance: Guidance
    batch_size: int
    calls: int = 0


def split_branches(
    pipe: Any,
    groups: RankGroups,
    configs: FolderConfigs,
    *,
    mode: AskedMode = EXACT,
    debug: bool = False,
    record: bool = False,
) -> BranchSplit:
    """Hook the denoisers of `pipe` so that the conditioning ranks of `groups` share its branches.

    In an approximate `mode` they also skip what it says; `record` keeps every step's predictions (`split.records`).
    `debug` compares the latents of all ranks at every denoiser call. Call this on every rank, after sequence parallelism
    is on (hooks put on later are outside). Leaving the result's context takes the hooks off.
    """
    conductor = None if mode.runs == "Exact" else RankConductor(pipe, mode, groups=groups, record=record)
    return BranchSplit(pipe, groups, configs, conductor=conductor, debug=debug)


@dataclass
class BranchSplit:
    """The hooks on one pipeline. Not thread-safe, as the pipeline itself isn't."""

    pipe: Any
    groups: RankGroups
    configs: FolderConfigs
    conductor: ModeWork | None = field(default=None, kw_only=True)
    """What evaluates the steps of an approximate mode; None in mode Exact."""
    one_by_one: bool = field(default=False, kw_only=True)
    """One rank evaluates the branches of a batched call one after the other."""
    debug: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._current: Step | None = None
        work: Work = ExactWork(self.groups) if self.conductor is None else self.conductor
        self._stacked = StackedBranches(self.groups, work)
        self._paired = PairedCalls(self.groups, work)
        self._hooked: list[torch.nn.Module] = []
        if self.groups.grid.conditioning == 1 and not self.debug and self.conductor is None:
            return
        for name in DENOISERS:
            self._hook(getattr(self.pipe, name, None), _DenoiserHook(self))
        for name in HELPERS:
            self._hook(getattr(self.pipe, name, None), ResidualsHook(self._stacked, self._helper_batch))

    def _hook(self, module: Any, hook: ForwardHook) -> None:
        if not isinstance(module, torch.nn.Module) or any(module is other for other in self._hooked):
            return
        hook.put_on(module, HOOK)
        self._hooked.append(module)

    @contextmanager
    def call(self, arguments: Mapping[str, Any], *, batch_size: int, exact: bool = False) -> Iterator[Guidance]:
        """Announce the call `pipe(**arguments)` for `batch_size` images, before making it, on every rank alike.

        `exact`: this one in mode Exact, whatever the split's. Gives the guidance of the call. Nothing of it is left
        afterwards, however it ends.
        """
        if self._current is not None:
            raise RuntimeError("a pipeline call is announced while another one runs")
        guidance = guidance_of_call(type(self.pipe), arguments, self.configs)
        self._current = Step(guidance=guidance, batch_size=batch_size)
        if self.conductor is not None:
            self.conductor.begin(guidance, arguments, exact=exact)
        try:
            yield guidance
            self._paired.check_complete()
        finally:
            self._current = None
            self._paired.reset()
            if self.conductor is not None:
                self.conductor.end()

    @property
    def course(self) -> Course | None:
        """What the steps of the last call were, in an approximate mode."""
        return None if self.conductor is None else self.conductor.course

    @property
    def records(self) -> list[StepRecord]:
        """The steps of the last call, where they are recorded."""
        return [] if self.conductor is None else self.conductor.records

    def close(self) -> None:
        """Take the hooks off."""
        if self.conductor is not None:
            self.conductor.close()
        while self._hooked:
            take_off(self._hooked.pop(), HOOK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def evaluate(self, hook: _DenoiserHook, module: torch.nn.Module, arguments: dict[str, Any]) -> Any:
        """One denoiser call of the pipeline, as the hook hands it over."""
        step = self._announced()
        latent = latent_of(arguments, module)
        if self.debug:
            check_agreement(latent, self.groups, step=step.calls)
        step.calls += 1
        forward = hook.inner
        alone = self.groups.grid.conditioning == 1
        if not step.guidance.guided or (alone and self.conductor is None):
            return forward(**arguments)
        if step.guidance.style == "one-call" and alone and not self.one_by_one:
            return self._stacked.evaluate_alone(module, forward, arguments, batch=step.batch_size)
        if step.guidance.style == "one-call":
            return self._stacked.evaluate(module, forward, arguments, batch=step.batch_size)
        # A callback may switch guidance off in mid-run: where the pipeline asks itself in each step, so does this.
        paired = not step.guidance.asked_each_step or bool(self.pipe.do_classifier_free_guidance)
        return self._paired.evaluate(module, forward, arguments, name=hook.names.current, paired=paired)

    def _helper_batch(self) -> int | None:
        """The batch size for a helper whose rows are stacked, or None when it has to run whole."""
        step = self._announced()
        one_by_one = self.one_by_one or self.groups.grid.conditioning > 1
        return step.batch_size if step.guidance.style == "one-call" and one_by_one else None

    def _announced(self) -> Step:
        if self._current is None:
            raise RuntimeError("the pipeline was called without BranchSplit.call: its batch size is unknown")
        return self._current


class _DenoiserHook(ForwardHook):
    """Sends each call of a denoiser to the split. Stateful only so that `cache_context` tells it the call's name."""

    _is_stateful = True

    def __init__(self, split: BranchSplit) -> None:
        super().__init__()
        self._split = split
        self.names = CallNames()

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What the split makes of the call."""
        return self._split.evaluate(self, module, named(module, args, kwargs))

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        """Forget the call's name."""
        self.names.reset()
        return module
