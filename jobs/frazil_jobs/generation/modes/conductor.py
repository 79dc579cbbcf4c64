"""Runs a job's approximate mode through the steps of each image: asks the policy, evaluates, tells it what came out.

`Conductor` is what ranks and simulator share: one image's policy, one `Denoiser` for each denoiser of the pipeline, the
record of the steps. How a step's work is spread over ranks is in `RankConductor` (`ranked.py`) and `simulate.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from frazil_jobs.base.log import get_logger
from frazil_jobs.generation.guidance import Guidance
from frazil_jobs.generation.modes.asked import AskedMode, too_few
from frazil_jobs.generation.modes.denoiser import Denoiser
from frazil_jobs.generation.modes.forecast import StaleTensor
from frazil_jobs.generation.modes.guided import ReusePolicy, StagedPolicy, Terms
from frazil_jobs.generation.modes.hybrid import HybridPolicy
from frazil_jobs.generation.modes.policy import AllWhole, Course, Kind, Policy
from frazil_jobs.generation.modes.samplers import hindrance
from frazil_jobs.generation.modes.sensitivity import NotKnown, sensitivities
from frazil_jobs.generation.stages.units import Uncuttable
from frazil_jobs.generation.switching import WindowRule

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step, for tests and pictures of what a mode did."""

    step: int
    kind: Kind
    age: int
    predictions: torch.Tensor
    """(branches, images, …)"""


@dataclass
class Conductor:
    """The mode of one pipeline. `record`: keep the predictions of every step."""

    pipe: Any
    mode: AskedMode
    record: bool = field(default=False, kw_only=True)
    course: Course = field(default_factory=Course, init=False)
    records: list[StepRecord] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._denoisers: dict[int, Denoiser] = {}
        self._reset()

    def _reset(self) -> None:
        self._guidance: Guidance | None = None
        self._policy: Policy | None = None
        self._step = 0
        self._current: Denoiser | None = None
        self._age = 0

    def begin(self, guidance: Guidance, arguments: Mapping[str, Any], *, exact: bool = False) -> None:
        """A pipeline call begins: nothing of the one before is left. `exact`: all of its steps are to be whole."""
        self._reset()
        for denoiser in self._denoisers.values():
            denoiser.forget()
        self.course, self.records = Course(), []
        self._guidance = guidance
        if exact or self.mode.asked == "Exact":
            self._policy, self.course.reason = AllWhole(), "it is the exact one" if exact else "mode is Exact"
            return
        reason = self.mode.whole_because
        if not reason and not guidance.guided:
            reason = f"there is no guidance to approximate: {guidance.reason}"
        if not reason:
            scheduler = self.pipe.scheduler
            reason = hindrance(type(scheduler), scheduler.config, arguments) or ""
        if reason:
            self._whole_because(reason)

    def end(self) -> None:
        """The pipeline call is over, however it ended."""
        self._reset()

    def close(self) -> None:
        """Take the hooks off."""
        for denoiser in self._denoisers.values():
            denoiser.close()
        self._denoisers = {}

    @property
    def kind(self) -> Kind:
        """Of the step that comes next."""
        return Kind.WHOLE if self._policy is None else self._policy.kind

    @property
    def conditional(self) -> int | None:
        """Which branch is the prompt's, in the order in which the pipeline has them."""
        return None if self._guidance is None else self._guidance.conditional

    def enter(self, module: torch.nn.Module) -> None:
        """A step begins: choose the policy at the first one, and the denoiser."""
        if self._policy is None:
            self._policy = self._choose_policy(module)
        if isinstance(self._policy, AllWhole):
            return
        denoiser = self._denoiser(module)
        if denoiser is None:
            return
        if self._current is not None and denoiser is not self._current:
            self._policy.forget()
            self._leave_window()
        self._current = denoiser

    def evaluate(self, branch: Any, arguments: Mapping[str, Any], call: Callable[[], Any]) -> Any:
        """One branch's evaluation in a step that isn't staged."""
        if self._current is None:
            return call()
        self._current.fit(arguments)
        if self.kind is Kind.REUSED:
            output, self._age = self._current.reused(branch, self._step, call)
            if self._age >= self.mode.switching.refresh_every:
                raise StaleTensor(f"features at step {self._step} are {self._age} steps old")
            return output
        if self._policy is None or not self._policy.learning:
            return call()
        return self._current.whole(branch, self._step, call)

    def observe(self, predictions: torch.Tensor) -> None:
        """The step is over; `predictions` is (branches, images, …)."""
        if self._policy is None:
            return
        kind = self.kind
        self.course.kinds.append(kind)
        self.course.ages.append(self._age)
        self.course.guidance_off += kind is Kind.STAGED and self.mode.asked == "Hybrid"
        if self.record:
            self.records.append(
                StepRecord(step=self._step, kind=kind, age=self._age, predictions=predictions.detach().clone())
            )
        self._policy.observe(predictions)
        self._step += 1
        self._age = 0
        if self.kind is Kind.STAGED and kind is not Kind.STAGED:
            self._enter_window()
        elif self.kind is not Kind.STAGED and kind is Kind.STAGED:
            self._leave_window()

    def _enter_window(self) -> None:
        """The step that comes next is the first of a window."""

    def _leave_window(self) -> None:
        """The step before was the last of a window."""

    def _denoiser(self, module: torch.nn.Module) -> Denoiser | None:
        found = self._denoisers.get(id(module))
        if found is None:
            order = self.mode.switching.predictor_order
            try:
                found = Denoiser(module, order, self.mode.stages)
            except Uncuttable as error:
                self._whole_because(str(error))
                self.mode = self.mode.whole(str(error))
                return None
            self._denoisers[id(module)] = found
        return found

    def _whole_because(self, reason: str) -> None:
        """All steps of this call are whole. (Ranks that would be its stages evaluate the same: no faster, and exact.)"""
        if not self.mode.whole_because:
            log.warning("all steps are whole", mode=self.mode.asked, reason=reason)
        self._policy = AllWhole()
        self.course.reason = reason

    def _choose_policy(self, module: torch.nn.Module) -> Policy:
        guidance, mode = self._guidance, self.mode
        assert guidance is not None
        steps = steps_of(self.pipe)
        reason = too_few(mode, steps)
        if reason:
            self._whole_because(reason)
            return AllWhole()
        if mode.asked == "Hybrid":
            assert guidance.conditional is not None
            return HybridPolicy(WindowRule.of(mode.switching, steps=steps), guidance.conditional)
        try:
            found = sensitivities(self.pipe.scheduler, steps=steps)
        except NotKnown as error:
            self._whole_because(str(error))
            return AllWhole()
        terms = Terms(
            order=mode.switching.predictor_order,
            refresh_every=mode.switching.refresh_every,
            allowed=mode.allowed_error,
            sensitivities=found,
            scale=1.0 if guidance.scale is None else guidance.scale,
            conditional=guidance.conditional,
        )
        if mode.stages == 1:
            return ReusePolicy(terms)
        denoiser = self._denoiser(module)
        return AllWhole() if denoiser is None else StagedPolicy(terms, staleness=denoiser.staleness, live=mode.live)


def steps_of(pipe: Any) -> int:
    """Denoising steps of the call in hand, once its scheduler is set: fewer than the scheduler's for image-to-image."""
    steps = len(pipe.scheduler.timesteps)
    own = getattr(pipe, "_num_timesteps", None)
    return min(steps, own) if isinstance(own, int) and own > 0 else steps
