"""Any mode in one process: what the ranks of a grid would compute, one after the other, with nothing sent.

    with simulate(pipe, configs, mode) as split:
        with split.call(arguments, batch_size=len(prompts)):
            images = pipe(**arguments).images

The ranks must equal it bit for bit at every step, and pictures of what a mode does need no GPUs. It takes the place of the
ranks' part (`modes/ranked.py`): all branches and all stages are evaluated here, and boundaries lie in a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from frazil_jobs.generation.branches import BranchSplit
from frazil_jobs.generation.groups import one_rank
from frazil_jobs.generation.guidance import FolderConfigs
from frazil_jobs.generation.modes.asked import AskedMode
from frazil_jobs.generation.modes.conductor import Conductor
from frazil_jobs.generation.modes.forecast import Kept
from frazil_jobs.generation.modes.policy import Kind
from frazil_jobs.generation.stages.cut import Boundary


def simulate(
    pipe: Any, configs: FolderConfigs, mode: AskedMode, *, one_by_one: bool = True, record: bool = True
) -> BranchSplit:
    """Hook `pipe` so that its calls give what `mode` gives on ranks. Leaving the result's context takes the hooks off.

    `one_by_one`: branches are evaluated as the ranks of conditioning 2 do it; otherwise as one rank does it, in the
    pipeline's own batched call.
    """
    conductor = Simulation(pipe, mode, record=record)
    return BranchSplit(pipe, one_rank(), configs, conductor=conductor, one_by_one=one_by_one)


@dataclass
class Simulation(Conductor):
    """All ranks of a mode. Implements `work.Work`."""

    def _reset(self) -> None:
        super()._reset()
        self._held: dict[Any, dict[Boundary, Kept]] = {}

    @property
    def line_branch(self) -> int | None:
        """The prompt's branch when all ranks would be one line."""
        return self.conditional if self.kind is Kind.STAGED and not self.mode.live else None

    def evaluate(self, branch: Any, arguments: Mapping[str, Any], call: Callable[[], Any]) -> Any:
        """Whole, without its core, or all stages, each on what the others made in the step before."""
        if self.kind is not Kind.STAGED:
            return super().evaluate(branch, arguments, call)
        denoiser = self._current
        assert denoiser is not None
        assert denoiser.cuts is not None
        assert denoiser.cuts.stages is not None
        held = self._held.get(branch) or denoiser.boundaries_of(branch)
        made: dict[Boundary, Kept] = {}

        def keep(boundary: Boundary, kept: Kept) -> None:
            made[boundary] = Kept(kept.step, tuple(tensor.clone() for tensor in kept.tensors))

        stages = range(denoiser.cuts.stages.count)
        outputs, ages = zip(
            *(denoiser.staged(branch, stage, self._step, held, call, keep) for stage in stages), strict=True
        )
        self._held[branch] = made
        self._age = max(ages)
        return outputs[-1]

    def exchange(self, prediction: torch.Tensor) -> torch.Tensor:
        """All branches are here already; from one line's prediction follow those of both."""
        if self.line_branch is None:
            return prediction
        assert self._policy is not None
        return self._policy.from_stages(prediction).flatten(0, 1)

    def _leave_window(self) -> None:
        self._held = {}
